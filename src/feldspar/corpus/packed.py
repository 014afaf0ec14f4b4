"""Many texts in one array of UTF-8 bytes, as Arrow holds them, without Python strings."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PackedTexts:
    """Text i is ``data[starts[i] : starts[i + 1]]`` (u8, i64)."""

    data: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, texts: Iterable[bytes]) -> "PackedTexts":
        """Pack texts that are UTF-8 already."""
        pieces = list(texts)
        starts = np.zeros(len(pieces) + 1, np.int64)
        np.cumsum([len(piece) for piece in pieces], out=starts[1:])
        return cls(np.frombuffer(b"".join(pieces), np.uint8), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def sizes(self) -> np.ndarray:
        """Bytes of each text."""
        return np.diff(self.starts)

    def encoded(self, index: int) -> memoryview:
        """Return the bytes of one text without a copy."""
        return self.data[self.starts[index] : self.starts[index + 1]].data

    def text(self, index: int) -> str:
        """Decode one text."""
        return str(self.encoded(index), "utf-8", "surrogatepass")

    def part(self, start: int, end: int) -> "PackedTexts":
        """Return the texts from ``start`` to ``end`` without a copy."""
        return PackedTexts(self.data, self.starts[start : end + 1])
