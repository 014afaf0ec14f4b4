"""Compiled ``duplicates.shingles.shingle_hashes`` and ``core.streams.hash_integers``."""

import numpy as np

from feldspar.corpus.kernels.selection import kernel
from feldspar.corpus.kernels.unicode import decoded

_WIDTH = 13
_INCREMENT = np.uint64(0x9E37_79B9_7F4A_7C15)
_FIRST = np.uint64(0xBF58_476D_1CE4_E5B9)
_SECOND = np.uint64(0x94D0_49BB_1331_11EB)
_S27, _S30, _S31 = np.uint64(27), np.uint64(30), np.uint64(31)
_ONE, _OUT, _REST, _OUT_REST = np.uint64(1), np.uint64(13), np.uint64(63), np.uint64(51)


@kernel
def mixed(value: np.uint64, key: np.uint64) -> np.uint64:
    """Apply ``hash_integers`` to one value."""
    value = value + key + _INCREMENT
    value = (value ^ (value >> _S30)) * _FIRST
    value = (value ^ (value >> _S27)) * _SECOND
    return value ^ (value >> _S31)


@kernel
def hash_text(
    data: np.ndarray,
    begin: int,
    end: int,
    characters: int,
    words: np.ndarray,
    word_key: np.uint64,
    hashes: np.ndarray,
) -> int:
    """Hash all 13-character windows of one cleaned text, in order; return their count.

    The text is ``data[begin:end]`` of ``characters`` code points; ``words`` (256, u64) are the
    table words of the first code points.
    """
    if characters < _WIDTH:
        return 0
    window = np.uint64(0)
    if characters == end - begin:
        for place in range(begin, begin + _WIDTH - 1):
            window = (window << _ONE | window >> _REST) ^ words[data[place]]
        for index in range(characters - _WIDTH + 1):
            window = (window << _ONE | window >> _REST) ^ words[data[begin + index + _WIDTH - 1]]
            hashes[index] = mixed(window, np.uint64(0))
            gone = words[data[begin + index]]
            # turned by 12 so far; the next window's turn by one is undone here
            window ^= gone << np.uint64(12) | gone >> np.uint64(52)
        return characters - _WIDTH + 1
    ring = np.zeros(_WIDTH, np.uint64)
    place, slot = begin, 0
    for index in range(characters):
        point, place = decoded(data, place)
        word = words[point] if point < 256 else mixed(np.uint64(point), word_key)
        gone = ring[slot]
        window = (window << _ONE | window >> _REST) ^ word
        window ^= gone << _OUT | gone >> _OUT_REST
        ring[slot] = word
        slot = slot + 1 if slot < _WIDTH - 1 else 0
        if index >= _WIDTH - 1:
            hashes[index - _WIDTH + 1] = mixed(window, np.uint64(0))
    return characters - _WIDTH + 1
