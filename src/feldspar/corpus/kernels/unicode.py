"""Decode and encode UTF-8 in kernels.

Bytes come from Python or Arrow and are whole; surrogates pass.
"""

import numpy as np

from feldspar.corpus.kernels.selection import kernel

_ONE, _TWO, _THREE, _FOUR = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
"""Sums of u64 and plain integers would be floating-point numbers."""


@kernel
def decoded(data: np.ndarray, place: int) -> tuple[np.uint32, int]:
    """Decode the code point at ``place``; return it and the place of the next."""
    first = np.uint32(data[place])
    if first < 0x80:
        return first, place + 1
    second = np.uint32(data[place + 1] & 0x3F)
    if first < 0xE0:
        return np.uint32((first & 0x1F) << 6 | second), place + 2
    third = np.uint32(data[place + 2] & 0x3F)
    if first < 0xF0:
        return np.uint32((first & 0x0F) << 12 | second << 6 | third), place + 3
    fourth = np.uint32(data[place + 3] & 0x3F)
    return np.uint32((first & 0x07) << 18 | second << 12 | third << 6 | fourth), place + 4


@kernel
def encode(point: np.uint32, found: np.ndarray, size: np.uint64) -> np.uint64:
    """Append a code point to ``found``, which ends at ``size``; return the new end."""
    if point < 0x80:
        found[size] = point
        return size + _ONE
    if point < 0x800:
        found[size] = 0xC0 | point >> 6
        found[size + _ONE] = 0x80 | point & 0x3F
        return size + _TWO
    if point < 0x10000:
        found[size] = 0xE0 | point >> 12
        found[size + _ONE] = 0x80 | point >> 6 & 0x3F
        found[size + _TWO] = 0x80 | point & 0x3F
        return size + _THREE
    found[size] = 0xF0 | point >> 18
    found[size + _ONE] = 0x80 | point >> 12 & 0x3F
    found[size + _TWO] = 0x80 | point >> 6 & 0x3F
    found[size + _THREE] = 0x80 | point & 0x3F
    return size + _FOUR
