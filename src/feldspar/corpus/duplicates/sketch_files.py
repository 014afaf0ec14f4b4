"""Sketches on disk, one file a part, read by document key."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from mmap import MADV_DONTNEED
from typing import Any

import numpy as np

from feldspar.corpus.duplicates.sketch import SKETCH_VALUES, agreements
from feldspar.corpus.parts import PartFiles

SKETCHES_NAME = "sketches.npy"
_PAIRS = 1 << 14
"""Pairs compared together: 16 MB of sketches."""
_OPEN_FILES = 256


@dataclass(frozen=True)
class SketchFiles:
    """The files of the sketches of parts ``first`` to ``last`` (exclusive)."""

    files: PartFiles
    first: int
    last: int

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each part's first key and its sketches, mapped from their file."""
        for part in range(self.first, self.last):
            yield int(self.files.starts[part]), self._load(part)

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files, "first": self.first, "last": self.last}

    def take(self, keys: np.ndarray) -> np.ndarray:
        """Read the sketches (keys, 128) u32 of ascending document keys."""
        found = np.empty((len(keys), SKETCH_VALUES), np.uint32)
        starts = self.files.starts
        borders = np.searchsorted(keys, starts)
        for part in np.flatnonzero(borders[1:] > borders[:-1]).tolist():
            own = slice(borders[part], borders[part + 1])
            values = self._mapped(part)
            found[own] = values[keys[own] - starts[part]]
            values.base.madvise(MADV_DONTNEED)  # what is mapped counts as held
        return found

    def agreements(self, pairs: np.ndarray) -> np.ndarray:
        """Count the values (of 128) in which the documents of each pair (n, 2) agree."""
        counts = np.empty(len(pairs), np.int64)
        for start in range(0, len(pairs), _PAIRS):
            block = pairs[start : start + _PAIRS]
            keys, places = np.unique(block, return_inverse=True)
            places = places.reshape(-1, 2)
            counts[start : start + len(block)] = agreements(self.take(keys), places)
        return counts

    def groups(self, documents: int) -> Iterator["SketchFiles"]:
        """Group consecutive files that have at most that many documents together."""
        first, starts = self.first, self.files.starts
        for end in range(self.first + 1, self.last + 1):
            if end == self.last or starts[end + 1] - starts[first] > documents:
                yield SketchFiles(self.files, first, end)
                first = end

    def _load(self, part: int) -> np.ndarray:
        return np.load(self.files.path(part, SKETCHES_NAME), mmap_mode="r")

    @cached_property
    def _maps(self) -> dict[int, np.ndarray]:
        return {}

    def _mapped(self, part: int) -> Any:
        """Map a part's sketches once for many reads: opening a file costs more than a read."""
        if part not in self._maps:
            if len(self._maps) >= _OPEN_FILES:
                self._maps.clear()
            self._maps[part] = self._load(part)
        return self._maps[part]
