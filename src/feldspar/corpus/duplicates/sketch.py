"""Fast similarity sketching (Dahlgaard, Knudsen, Thorup 2017) of shingle hashes, k = 128.

Exactly, so that ``kernels/sketching.py`` gives the same bits: let ``h_0(x) = x`` and, for t > 0,
``h_t(x) = hash_integers(x, t * ROUND_KEY mod 2^64)``. Round t < k puts every x into bucket
``h_t(x) >> 57``; each bucket that no earlier round filled keeps the smallest ``h_t(x)``. Round
k + b fills bucket b, when still empty, with the smallest ``h_(k+b)(x)`` over all x. The sketch is
the low 32 bits of each bucket. Repeated elements change nothing. The share of equal buckets of two
sketches estimates the Jaccard similarity without bias, with less variance than MinHash on small
sets.
"""

from collections.abc import Iterator

import numpy as np

from feldspar.core.streams import hash_integers
from feldspar.corpus.duplicates.shingles import (
    LATIN_WORDS,
    SHINGLE_CHARACTERS,
    WORD_KEY,
    shingle_hashes,
)
from feldspar.corpus.kernels import sketching
from feldspar.corpus.kernels.selection import compiled
from feldspar.corpus.packed import PackedTexts

SKETCH_VALUES = 128
ROUND_KEY = 0xD134_2543_DE82_EF95
LONG_HASHES = 4096
"""A text of more that leaves a bucket empty in round 0 has few distinct ones: repeats go first."""
BATCH_CHARACTERS = 1 << 17
"""Texts hashed together: large enough to hide numpy's overhead, small enough for the cache."""

_BUCKET_SHIFT = np.uint64(57)
_EMPTY = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


def sketch_texts(texts: PackedTexts, characters: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Sketch cleaned texts: (texts, 128) u32, zeros where ``wanted`` (mask) is off.

    ``characters`` are the code points of each; a text of fewer than 13 gets zeros too.
    """
    found = np.zeros((len(texts), SKETCH_VALUES), np.uint32)
    left = wanted & (characters >= SHINGLE_CHARACTERS)
    if compiled():
        asked, left = left, np.zeros(len(texts), bool)
        hashes = np.empty(characters[asked].max(initial=0), np.uint64)
        keys = np.uint64(WORD_KEY), np.uint64(ROUND_KEY)
        sketching.sketch_texts(
            texts.data, texts.starts, characters, asked,
            LATIN_WORDS, *keys, LONG_HASHES, hashes, found, left,
        )  # fmt: skip
    for start, end in _stretches(left, characters):
        found[start:end] = sketches(*shingle_hashes(texts.part(start, end), characters[start:end]))
    return found


def _stretches(wanted: np.ndarray, characters: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield stretches of consecutive wanted texts of about ``BATCH_CHARACTERS`` in total."""
    start = size = 0
    for index, (own, length) in enumerate(zip(wanted.tolist(), characters.tolist(), strict=True)):
        if start < index and (not own or size + length > BATCH_CHARACTERS):
            yield start, index
            start, size = index, 0
        if own:
            size += length
        else:
            start = index + 1
    if start < len(wanted):
        yield start, len(wanted)


def sketches(hashes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sketch documents whose hashes lie one after the other: (documents, 128) u32.

    ``counts[i]`` hashes belong to document i; a document without any gets zeros.
    """
    documents = len(counts)
    buckets = np.full((documents, SKETCH_VALUES), _EMPTY, dtype=np.uint64)
    owners = np.repeat(np.arange(documents, dtype=np.int64), counts)
    slots = owners * SKETCH_VALUES
    slots += (hashes >> _BUCKET_SHIFT).view(np.int64)
    np.minimum.at(buckets.reshape(-1), slots, hashes)
    _fill_empty(buckets, hashes, owners, counts)
    buckets[counts == 0] = 0
    return (buckets & np.uint64(0xFFFF_FFFF)).astype(np.uint32)


def _fill_empty(
    buckets: np.ndarray, hashes: np.ndarray, owners: np.ndarray, counts: np.ndarray
) -> None:
    """Run rounds 1 to 2k - 1 over the documents that still have an empty bucket."""
    hashes, owners = _without_repeats(buckets, hashes, owners, counts)
    for step in range(1, 2 * SKETCH_VALUES):
        empty = buckets == _EMPTY
        open_documents = empty.any(axis=1) & (counts > 0)
        if not open_documents.any():
            return
        kept = open_documents[owners]
        if not kept.all():
            hashes, owners = hashes[kept], owners[kept]
        values = hash_integers(hashes, step * ROUND_KEY)
        if step < SKETCH_VALUES:
            slots = owners * SKETCH_VALUES + (values >> _BUCKET_SHIFT).view(np.int64)
        else:
            slots = owners * SKETCH_VALUES + (step - SKETCH_VALUES)
        wanted = empty.reshape(-1)[slots]
        np.minimum.at(buckets.reshape(-1), slots[wanted], values[wanted])


def _without_repeats(
    buckets: np.ndarray, hashes: np.ndarray, owners: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Keep each hash of long documents once; 255 rounds over repeated hashes would be slow."""
    for document in np.flatnonzero((counts > LONG_HASHES) & (buckets == _EMPTY).any(axis=1)):
        own = owners == document
        distinct = np.unique(hashes[own])
        hashes = np.concatenate([hashes[~own], distinct])
        owners = np.concatenate([owners[~own], np.full(len(distinct), document)])
    return hashes, owners


def agreements(values: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Count the values (of 128) in which the rows of each of ``pairs`` (n, 2) agree."""
    if not compiled():
        return agreement(values[pairs[:, 0]], values[pairs[:, 1]])
    counts = np.empty(len(pairs), np.int64)
    sketching.agreements(values, pairs, counts)
    return counts


def agreement(sketches_a: np.ndarray, sketches_b: np.ndarray) -> np.ndarray:
    """Count the values (of 128) in which each pair of sketches (pairs, 128) agrees."""
    return np.count_nonzero(sketches_a == sketches_b, axis=1)
