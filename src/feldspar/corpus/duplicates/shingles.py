"""Hashes of all runs of 13 characters of cleaned text.

The hash is defined exactly, so that ``kernels/hashing.py`` gives the same bits: with
``word(c) = hash_integers(c, WORD_KEY)`` for code point ``c``, the window starting at ``i`` has
``xor over j of rotate_left(word(text[i + j]), 12 - j)``, and the shingle's hash is
``hash_integers(window, 0)`` (core.streams; the finaliser of splitmix64).
"""

import numpy as np

from feldspar.core.streams import hash_integers
from feldspar.corpus.packed import PackedTexts

SHINGLE_CHARACTERS = 13
WORD_KEY = 0x5E3D_5BA2_13C4_A7F1

LATIN_WORDS = hash_integers(np.arange(256, dtype=np.uint64), WORD_KEY)
"""Words of the first code points."""


def shingle_hashes(texts: PackedTexts, characters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hash all shingles of cleaned texts (u64), one text after the other, and count each text's.

    ``characters`` are the code points of each text. A text of fewer than 13 has no hash.
    """
    counts = np.maximum(characters - (SHINGLE_CHARACTERS - 1), 0)
    words = _words(texts.data[texts.starts[0] : texts.starts[-1]])
    if len(words) < SHINGLE_CHARACTERS:
        return np.empty(0, np.uint64), counts
    hashes = hash_integers(_windows(words), 0)
    if len(texts) == 1:
        return hashes, counts
    starts = np.cumsum(characters) - characters
    pieces = [hashes[start : start + count] for start, count in zip(starts, counts, strict=True)]
    return np.concatenate(pieces), counts


def distinct_hashes(texts: PackedTexts, characters: np.ndarray) -> list[np.ndarray]:
    """Return the sorted set of hashes (u64) of each cleaned text."""
    found = []
    for index in range(len(texts)):
        hashes, _ = shingle_hashes(texts.part(index, index + 1), characters[index : index + 1])
        hashes.sort()
        found.append(hashes[first_of_runs(hashes)])
    return found


def first_of_runs(values: np.ndarray) -> np.ndarray:
    """Mark the entries of a sorted array that differ from the entry before."""
    mask = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=mask[1:])
    return mask


def _words(data: np.ndarray) -> np.ndarray:
    if not len(data) or data.max() < 0x80:
        return LATIN_WORDS[data]
    text = str(data.data, "utf-8", "surrogatepass")
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    words = LATIN_WORDS[points & 0xFF]
    others = np.flatnonzero(points > 0xFF)
    words[others] = hash_integers(points[others], WORD_KEY)
    return words


def _windows(words: np.ndarray) -> np.ndarray:
    """Hash every window of 13 table words by doubling: windows of 2, 4, 8, 12 and 13."""
    two = _rotated(words[:-1], 1) ^ words[1:]
    four = _rotated(two[:-2], 2) ^ two[2:]
    eight = _rotated(four[:-4], 4) ^ four[4:]
    twelve = _rotated(eight[:-4], 4) ^ four[8:]
    return _rotated(twelve[:-1], 1) ^ words[12:]


def _rotated(words: np.ndarray, bits: int) -> np.ndarray:
    rotated = words << np.uint64(bits)
    rotated |= words >> np.uint64(64 - bits)
    return rotated
