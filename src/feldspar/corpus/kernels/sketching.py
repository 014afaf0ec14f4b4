"""Compiled ``duplicates.sketch.sketches``, from cleaned texts without arrays of all hashes."""

import numpy as np

from feldspar.corpus.kernels.hashing import hash_text, mixed
from feldspar.corpus.kernels.selection import kernel

_VALUES = 128
_SHIFT = np.uint64(57)
_EMPTY = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_LOW = np.uint64(0xFFFF_FFFF)


@kernel
def sketch_texts(
    data: np.ndarray,
    starts: np.ndarray,
    characters: np.ndarray,
    wanted: np.ndarray,
    words: np.ndarray,
    word_key: np.uint64,
    round_key: np.uint64,
    long: int,
    hashes: np.ndarray,
    found: np.ndarray,
    left: np.ndarray,
) -> None:
    """Write sketches (documents, 128) of the ``wanted`` cleaned texts into ``found`` (u32).

    ``left`` marks those of more than ``long`` hashes that the first round leaves open, which have
    many repeats: they are not sketched. ``hashes`` (u64) has room for the longest text.
    """
    buckets = np.empty(_VALUES, np.uint64)
    rounds = np.empty(_VALUES, np.int64)
    for document in range(len(characters)):
        if not wanted[document]:
            continue
        begin, end = starts[document], starts[document + 1]
        count = hash_text(data, begin, end, characters[document], words, word_key, hashes)
        if count == 0:
            continue
        buckets[:] = _EMPTY
        for index in range(count):
            value = hashes[index]
            bucket = value >> _SHIFT
            buckets[bucket] = min(buckets[bucket], value)
        if not _filled(buckets):
            if count > long:
                left[document] = True
                continue
            _fill_empty(hashes, count, round_key, buckets, rounds)
        for bucket in range(_VALUES):
            found[document, bucket] = buckets[bucket] & _LOW


@kernel
def _filled(buckets: np.ndarray) -> bool:
    empty = 0
    for bucket in range(_VALUES):
        empty += buckets[bucket] == _EMPTY
    return empty == 0


@kernel
def _fill_empty(
    hashes: np.ndarray,
    count: int,
    round_key: np.uint64,
    buckets: np.ndarray,
    rounds: np.ndarray,
) -> None:
    rounds[:] = 0
    for step in range(1, _VALUES):
        key = np.uint64(step) * round_key
        for index in range(count):
            value = mixed(hashes[index], key)
            bucket = value >> _SHIFT
            if buckets[bucket] == _EMPTY:
                buckets[bucket] = value
                rounds[bucket] = step
            elif rounds[bucket] == step:
                buckets[bucket] = min(buckets[bucket], value)
        if _filled(buckets):
            return
    for bucket in range(_VALUES):
        if buckets[bucket] == _EMPTY:
            key = np.uint64(_VALUES + bucket) * round_key
            for index in range(count):
                buckets[bucket] = min(buckets[bucket], mixed(hashes[index], key))


@kernel
def agreements(values: np.ndarray, pairs: np.ndarray, counts: np.ndarray) -> None:
    """Count the values (of 128) in which the rows of each pair agree."""
    for position in range(len(pairs)):
        one, other = values[pairs[position, 0]], values[pairs[position, 1]]
        equal = np.int32(0)
        for place in range(_VALUES):
            equal += np.int32(one[place] == other[place])
        counts[position] = equal
