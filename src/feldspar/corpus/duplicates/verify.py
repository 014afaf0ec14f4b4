"""Exact Jaccard similarity of pairs, as two integers, recomputed from the texts."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from feldspar.corpus.clean import cleaned
from feldspar.corpus.duplicates.components import component_labels
from feldspar.corpus.duplicates.shingles import distinct_hashes
from feldspar.corpus.parts import PartFiles

UNIT_CHARACTERS = 4_000_000
"""Cleaned characters of the documents of one unit of work (16 bytes of memory each)."""


@dataclass(frozen=True)
class VerifyUnit:
    """Pairs of document keys to compare, and the files that hold the texts."""

    files: PartFiles
    pairs: np.ndarray


def verify_units(
    files: PartFiles, pairs: np.ndarray, characters: np.ndarray
) -> Iterator[VerifyUnit]:
    """Pairs in order of their candidate component, cut where a unit's texts grow too large.

    ``characters[key]`` is the length of a document. The cuts depend on the data only.
    """
    labels = component_labels(len(characters), pairs)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0], labels[pairs[:, 0]]))]
    start, loaded, size = 0, set[int](), 0
    for position, (low, high) in enumerate(pairs.tolist()):
        added = {low, high} - loaded
        extra = sum(int(characters[key]) for key in added)
        if size + extra > UNIT_CHARACTERS and position > start:
            yield VerifyUnit(files, pairs[start:position])
            start, loaded, size = position, set(), 0
            added = {low, high}
            extra = int(characters[low] + characters[high])
        loaded |= added
        size += extra
    if start < len(pairs):
        yield VerifyUnit(files, pairs[start:])


def verify(unit: VerifyUnit) -> np.ndarray:
    """Rows (low key, high key, size of the intersection, size of the union), in the unit's order.

    Two texts without shingles have an empty union.
    """
    keys = np.unique(unit.pairs)
    sets = {key: distinct_hashes(cleaned(text)) for key, text in unit.files.texts(keys.tolist())}
    rows = np.empty((len(unit.pairs), 4), dtype=np.int64)
    rows[:, :2] = unit.pairs
    for row in rows:
        first, second = sets[int(row[0])], sets[int(row[1])]
        row[2] = intersection_size(first, second)
        row[3] = len(first) + len(second) - row[2]
    return rows


def intersection_size(first: np.ndarray, second: np.ndarray) -> int:
    """How many values two sorted arrays without repeats share."""
    merged = np.concatenate([first, second])
    merged.sort(kind="stable")  # merges two sorted runs in linear time
    return int(np.count_nonzero(merged[1:] == merged[:-1]))


def at_least(intersections: np.ndarray, unions: np.ndarray, threshold: float) -> np.ndarray:
    """Whether intersection / union >= threshold, compared as integers: no floating-point ties."""
    share = Fraction(str(threshold)).limit_denominator(10**6)
    return intersections * share.denominator >= unions * share.numerator
