"""Clean UTF-8 bytes as ``clean.cleaned`` does, compiled and without Python strings.

Two passes without branches in the common case: map each byte and drop what is deleted; then drop
each space that follows a space. Documents with other than ASCII characters go by code point.
"""

import numpy as np

from feldspar.corpus.kernels.selection import kernel
from feldspar.corpus.kernels.unicode import decoded, encode

DELETED_BYTE = np.uint8(0xFF)
DELETED = np.uint32(0xFFFF_FFFF)
ODD = np.uint32(0xFFFF_FFFE)
"""Lower case depends on the neighbours or is several characters: left to Python."""
_SPACE = np.uint8(0x20)


@kernel
def clean(
    data: np.ndarray,
    starts: np.ndarray,
    first: int,
    byte_map: np.ndarray,
    point_map: np.ndarray,
    points: np.ndarray,
    found: np.ndarray,
    found_starts: np.ndarray,
    characters: np.ndarray,
) -> int:
    """Clean documents from ``first`` on, up to the first that needs Python; returns that one.

    Document i is ``data[starts[i] : starts[i + 1]]`` and becomes ``found[found_starts[i] :
    found_starts[i + 1]]`` of ``characters[i]`` code points. ``points`` (u32) has room for the
    longest document.
    """
    at = np.uint64(found_starts[first])
    for document in range(first, len(starts) - 1):
        source = data[starts[document] : starts[document + 1]]
        size, bits = at, np.uint8(0)
        for byte in source:
            bits |= byte
            mapped = byte_map[byte]
            found[size] = mapped
            size += np.uint64(mapped != DELETED_BYTE)
        if bits < 0x80:
            size = _single_spaces(found, at, size)
            characters[document] = size - at
        else:
            count = _map_points(source, point_map, points)
            if count < 0:
                return document
            size = at
            for index in range(count):
                size = encode(points[index], found, size)
            characters[document] = count
        at = size
        found_starts[document + 1] = at
    return len(starts) - 1


@kernel
def _single_spaces(found: np.ndarray, begin: np.uint64, end: np.uint64) -> np.uint64:
    """Reduce runs of spaces to one and strip the ends; return the new end."""
    size, last = begin, _SPACE
    for value in found[begin:end]:
        found[size] = value
        size += np.uint64((value != _SPACE) | (last != _SPACE))
        last = value
    if size > begin and last == _SPACE:
        size -= np.uint64(1)
    return size


@kernel
def _map_points(data: np.ndarray, point_map: np.ndarray, points: np.ndarray) -> int:
    """Write the cleaned code points of a document; return their count, -1 if Python is needed."""
    count, place, last = 0, 0, np.uint32(_SPACE)
    while place < len(data):
        point, place = decoded(data, place)
        mapped = point_map[point]
        if mapped >= ODD:
            if mapped == ODD:
                return -1
            continue
        points[count] = mapped
        count += (mapped != _SPACE) | (last != _SPACE)
        last = mapped
    if count > 0 and points[count - 1] == _SPACE:
        count -= 1
    return count
