"""Compiled sizes of intersections of shingle sets, and where a long list of pairs is cut."""

import numpy as np

from feldspar.corpus.kernels.hashing import hash_text
from feldspar.corpus.kernels.selection import kernel

_EMPTY = np.uint32(0)


@kernel
def cut_pairs(pairs: np.ndarray, characters: np.ndarray, most: int) -> np.ndarray:
    """Find the ends of stretches of ``pairs`` (n, 2) with at most ``most`` characters.

    ``characters`` is indexed by the entries of ``pairs``. A stretch has at least one pair.
    """
    ends = np.empty(len(pairs), np.int64)
    loaded = np.full(len(characters), -1, np.int64)
    count = start = size = 0
    for position in range(len(pairs)):
        low, high = pairs[position]
        added = 0
        if loaded[low] != count:
            added += characters[low]
        if loaded[high] != count:
            added += characters[high]
        if size + added > most and position > start:
            ends[count] = position
            count, start = count + 1, position
            size, added = 0, characters[low] + characters[high]
        loaded[low] = loaded[high] = count
        size += added
    if start < len(pairs):
        ends[count] = len(pairs)
        count += 1
    return ends[:count]


@kernel
def intersections(
    data: np.ndarray,
    starts: np.ndarray,
    characters: np.ndarray,
    pairs: np.ndarray,
    words: np.ndarray,
    word_key: np.uint64,
    numerator: int,
    denominator: int,
    found: np.ndarray,
) -> None:
    """Compute the sizes of intersection and union of the shingle sets of pairs of texts.

    They go into ``found`` (pairs, 2). Pairs lie in groups that share no document, one after the
    other, and within a group those of equal first document are neighbours. The shingles of a group
    are numbered through one hash table; a text becomes the list of its numbers. An intersection
    that cannot reach ``numerator / denominator`` of its union is left at 0.
    """
    ends, sizes = _groups(pairs, characters)
    most = sizes.max()
    table = np.empty(_capacity(most), np.uint32)
    numbers = np.empty(most, np.uint32)
    hash_of, last_text = np.empty(most + 2, np.uint64), np.empty(most + 1, np.int64)
    hashes = np.empty(characters.max(), np.uint64)
    bounds = np.full((len(characters), 2), -1, np.int64)
    marks = np.full(most + 1, -1, np.int64)
    start = marked = 0
    for end, own in zip(ends, sizes):  # noqa: B905 - numba knows no strict
        capacity = _capacity(own)
        table[:capacity] = _EMPTY
        size, distinct = 0, np.uint32(0)
        for text in pairs[start:end].ravel():
            if bounds[text, 0] < 0:
                count = hash_text(
                    data, starts[text], starts[text + 1], characters[text], words, word_key, hashes
                )
                bounds[text, 0] = size
                size, distinct = _number(
                    hashes[:count], text, np.uint64(capacity - 1), table, hash_of, distinct,
                    last_text, numbers, size,
                )  # fmt: skip
                bounds[text, 1] = size
        for position in range(start, end):
            low, high = pairs[position]
            first = numbers[bounds[low, 0] : bounds[low, 1]]
            second = numbers[bounds[high, 0] : bounds[high, 1]]
            if position == start or pairs[position - 1, 0] != low:
                for number in first:
                    marks[number] = position
                marked = position
            both = len(first) + len(second)
            least = -(-numerator * both // (numerator + denominator))
            shared = _shared(second, marks, marked, least if len(first) >= least else both)
            found[position, 0] = shared
            found[position, 1] = both - shared
        start = end


@kernel
def _capacity(entries: int) -> int:
    """Return a power of two that so many entries fill to a half at most."""
    capacity = 1
    while capacity < entries * 2:
        capacity *= 2
    return capacity


@kernel
def _shared(numbers: np.ndarray, marks: np.ndarray, marked: int, least: int) -> int:
    """Count the marked ``numbers``; return 0 once fewer than ``least`` are certain."""
    shared = 0
    for start in range(0, len(numbers), 256):
        block = numbers[start : start + 256]
        if shared + len(numbers) - start < least:
            return 0
        for number in block:
            shared += marks[number] == marked
    return shared if shared >= least else 0


@kernel
def _number(
    hashes: np.ndarray,
    text: int,
    mask: np.uint64,
    table: np.ndarray,
    hash_of: np.ndarray,
    distinct: np.uint32,
    last_text: np.ndarray,
    numbers: np.ndarray,
    size: int,
) -> tuple[int, np.uint32]:
    """Append the number of each of a text's shingles, once; new ends of lists and of numbers.

    Texts that share a passage share it in order: what follows the last number is looked at first.
    """
    number = np.uint32(0)
    for value in hashes:
        number += np.uint32(1)
        if number > distinct or hash_of[number] != value:
            slot = value & mask
            number = table[slot]
            while number != _EMPTY and hash_of[number] != value:
                slot = (slot + np.uint64(1)) & mask
                number = table[slot]
            if number == _EMPTY:
                distinct += np.uint32(1)
                number = distinct
                table[slot] = number
                hash_of[number] = value
                last_text[number] = text - 1
        if last_text[number] != text:
            last_text[number] = text
            numbers[size] = number
            size += 1
    return size, distinct


@kernel
def _groups(pairs: np.ndarray, characters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the ends of groups of pairs that share no text, and the characters of each."""
    last, seen = np.zeros(len(characters), np.int64), np.zeros(len(characters), np.bool_)
    for position in range(len(pairs)):
        last[pairs[position, 0]] = last[pairs[position, 1]] = position
    ends, sizes = np.empty(len(pairs), np.int64), np.zeros(len(pairs), np.int64)
    count = reach = 0
    for position in range(len(pairs)):
        for text in pairs[position]:
            reach = max(reach, last[text])
            if not seen[text]:
                seen[text] = True
                sizes[count] += characters[text]
        if reach == position:
            ends[count] = position + 1
            count += 1
    return ends[:count], sizes[:count]
