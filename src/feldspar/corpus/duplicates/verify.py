"""Exact Jaccard similarity of pairs, as two integers, recomputed from the texts."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from feldspar.corpus.clean import cleaned_texts
from feldspar.corpus.duplicates.components import component_labels
from feldspar.corpus.duplicates.runs import Range, sorted_rows, without_repeats
from feldspar.corpus.duplicates.shingles import distinct_hashes
from feldspar.corpus.packed import PackedTexts
from feldspar.corpus.parts import PartFiles

UNIT_CHARACTERS = 1_000_000
"""Cleaned characters of the documents of one unit of work (16 bytes of memory each)."""


@dataclass(frozen=True)
class VerifyUnit:
    """Pairs of document keys to compare, and the files that hold the texts."""

    files: PartFiles
    pairs: np.ndarray


@dataclass(frozen=True)
class OrderUnit:
    """A folder of candidate pairs, and the file of each document's component of candidates."""

    folder: Path
    labels: Path


@dataclass(frozen=True)
class CompareUnit:
    """Candidates (component, low, high) to compare; all are edges where there is no threshold."""

    files: PartFiles
    candidates: Range
    characters: Path
    threshold: float | None


def order_candidates(unit: OrderUnit, folder: Path) -> dict[str, Any]:
    """Runs of (component, low, high): documents of one component are then read together."""
    labels = np.load(unit.labels, mmap_mode="r")
    for path in sorted(unit.folder.glob("pairs-*.npy")):
        pairs = np.load(path)
        rows = np.stack([labels[pairs[:, 0]], pairs[:, 0], pairs[:, 1]])
        np.save(folder / path.name, sorted_rows(rows))
    return {}


def compare_candidates(unit: CompareUnit, folder: Path) -> dict[str, Any]:
    """A run of the edges (low, high, intersection, union); the union is 0 where not compared."""
    pairs = without_repeats(unit.candidates.read(), 3)[1:].T
    rows = np.zeros((len(pairs), 4), np.int64)
    rows[:, :2] = pairs
    if unit.threshold is not None:
        characters = np.load(unit.characters, mmap_mode="r")
        found = [verify(each) for each in _cut(unit.files, pairs, characters)]
        rows = np.concatenate(found) if found else rows
        rows = rows[(rows[:, 3] > 0) & at_least(rows[:, 2], rows[:, 3], unit.threshold)]
    np.save(folder / "edges.npy", sorted_rows(rows.T))
    return {"compared": len(pairs)}


def verify_units(
    files: PartFiles, pairs: np.ndarray, characters: np.ndarray
) -> Iterator[VerifyUnit]:
    """Pairs in order of their component, cut where a unit's texts grow too large.

    ``characters[key]`` is the length of a document. The cuts depend on the data only.
    """
    labels = component_labels(len(characters), pairs)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0], labels[pairs[:, 0]]))]
    yield from _cut(files, pairs, characters)


def _cut(files: PartFiles, pairs: np.ndarray, characters: np.ndarray) -> Iterator[VerifyUnit]:
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
    texts = (text.encode("utf-8") for _, text in unit.files.texts(keys.tolist()))
    sets = dict(
        zip(keys.tolist(), distinct_hashes(*cleaned_texts(PackedTexts.of(texts))), strict=True)
    )
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
