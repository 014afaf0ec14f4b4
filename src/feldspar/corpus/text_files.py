"""Texts of documents in any order, read from where they lie in the part files.

Plain reads, no memory maps: what is mapped counts as held, and opening an Arrow file for each text
costs more than to compare it.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feldspar.corpus.packed import PackedTexts
from feldspar.corpus.parts import PartFiles


@dataclass(frozen=True)
class TextFiles:
    """Parts, and the file of where texts lie, which ``write_places`` wrote."""

    files: PartFiles
    places: Path

    def characters(self, keys: np.ndarray) -> np.ndarray:
        """Cleaned code points of documents."""
        return np.load(self.places, mmap_mode="r")[2][keys]

    def read(self, keys: np.ndarray) -> PackedTexts:
        """The kept texts of ascending keys."""
        begins, sizes, _ = np.load(self.places, mmap_mode="r")
        begins, sizes = begins[keys], sizes[keys]
        starts = np.zeros(len(keys) + 1, np.int64)
        np.cumsum(sizes, out=starts[1:])
        data = np.empty(starts[-1], np.uint8)
        borders = np.searchsorted(keys, self.files.starts)
        for part in np.flatnonzero(borders[1:] > borders[:-1]).tolist():
            with self.files.path(part).open("rb", buffering=0) as file:
                for index in range(borders[part], borders[part + 1]):
                    target = data[starts[index] : starts[index + 1]]
                    read = os.preadv(file.fileno(), [target.data], begins[index])
                    assert read == len(target)
        return PackedTexts(data, starts)


def write_places(path: Path, begins: np.ndarray, sizes: np.ndarray, characters: np.ndarray) -> None:
    """By key: where a text begins in its part file, its bytes, its cleaned code points."""
    np.save(path, np.stack([begins, sizes, characters]))
