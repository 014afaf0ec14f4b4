"""Sketches on disk, one file a part, read by document key."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feldspar.corpus.duplicates.sketch import SKETCH_VALUES, agreements

SKETCHES_NAME = "sketches.npy"
_PAIRS = 1 << 14
"""Pairs compared together: 16 MB of sketches."""


@dataclass(frozen=True)
class SketchFiles:
    """Files of sketches in order; ``starts`` holds the first key of each, and the number of all."""

    paths: Sequence[Path]
    starts: tuple[int, ...]

    def take(self, keys: np.ndarray) -> np.ndarray:
        """The sketches (keys, 128) u32 of document keys in any order."""
        found = np.empty((len(keys), SKETCH_VALUES), np.uint32)
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        borders = np.searchsorted(ordered, self.starts)
        for part in np.flatnonzero(borders[1:] > borders[:-1]).tolist():
            own = slice(borders[part], borders[part + 1])
            file = np.load(self.paths[part], mmap_mode="r")
            found[order[own]] = file[ordered[own] - self.starts[part]]
        return found

    def agreements(self, pairs: np.ndarray) -> np.ndarray:
        """In how many of the 128 values the documents of each pair (n, 2) agree."""
        counts = np.empty(len(pairs), np.int64)
        for start in range(0, len(pairs), _PAIRS):
            block = pairs[start : start + _PAIRS]
            keys, places = np.unique(block, return_inverse=True)
            places = places.reshape(-1, 2)
            counts[start : start + len(block)] = agreements(self.take(keys), places)
        return counts

    def groups(self, documents: int) -> Iterator["SketchFiles"]:
        """Neighbouring files together, as many as have at most that many documents."""
        first = 0
        for part in range(len(self.paths)):
            last = part + 1 == len(self.paths)
            if last or self.starts[part + 2] - self.starts[first] > documents:
                yield SketchFiles(self.paths[first : part + 1], self.starts[first : part + 2])
                first = part + 1
