"""Compute the exact Jaccard similarity of pairs from their texts, as two integers.

Texts are read with plain reads, without memory maps: mapped pages count as held memory, and opening
an Arrow file for each text costs more than comparing it.
"""

import os
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from feldspar.corpus.clean import cleaned_texts
from feldspar.corpus.duplicates.runs import Range, sorted_rows, without_repeats
from feldspar.corpus.duplicates.shingles import LATIN_WORDS, WORD_KEY, distinct_hashes
from feldspar.corpus.kernels.comparison import cut_pairs, intersections
from feldspar.corpus.kernels.selection import compiled
from feldspar.corpus.packed import PackedTexts
from feldspar.corpus.parts import PartFiles


@dataclass(frozen=True)
class TextFiles:
    """The part files, and the file of the places of texts that ``write_places`` wrote."""

    files: PartFiles
    places: Path

    def characters(self, keys: np.ndarray) -> np.ndarray:
        """Return the cleaned code points of documents."""
        return np.load(self.places, mmap_mode="r")[2][keys]

    def read(self, keys: np.ndarray) -> PackedTexts:
        """Read the kept texts of ascending keys."""
        begins, sizes, _ = np.load(self.places, mmap_mode="r")
        begins, sizes = begins[keys], sizes[keys]
        starts = np.zeros(len(keys) + 1, np.int64)
        np.cumsum(sizes, out=starts[1:])
        data = np.empty(starts[-1], np.uint8)
        borders = np.searchsorted(keys, self.files.starts)
        for part in np.flatnonzero(borders[1:] > borders[:-1]).tolist():
            with self.files.path(part).open("rb", buffering=0) as file:
                for index in range(borders[part], borders[part + 1]):
                    target = data[starts[index] : starts[index + 1]]
                    read = os.preadv(file.fileno(), [target.data], begins[index])
                    assert read == len(target)
        return PackedTexts(data, starts)


def write_places(path: Path, begins: np.ndarray, sizes: np.ndarray, characters: np.ndarray) -> None:
    """Write by key: the begin of a text in its part file, its bytes, its cleaned code points."""
    np.save(path, np.stack([begins, sizes, characters]))


UNIT_CHARACTERS = 500_000
"""Cleaned characters of the documents that are compared together (50 bytes of memory each)."""
PAIRS_TOGETHER = 4096
"""Pairs that a worker is given together."""


@dataclass(frozen=True)
class VerifyUnit:
    """Pairs of document keys to compare, the texts, and the threshold above which a pair counts."""

    texts: TextFiles
    pairs: np.ndarray
    threshold: float | None = None


@dataclass(frozen=True)
class OrderUnit:
    """A folder of candidate pairs, and the file of each document's tile."""

    folder: Path
    tiles: Path


@dataclass(frozen=True)
class CompareUnit:
    """Candidates (tile, tile, low, high) to compare; without a threshold all are edges."""

    texts: TextFiles
    candidates: Range
    threshold: float | None


def tiles_of(labels: np.ndarray, characters: np.ndarray) -> np.ndarray:
    """Give each document a tile: documents in order of component, cut into half units.

    Pairs between two tiles are compared together. Of a component of n documents that are all
    paired, each is so read n / tile times, not n.
    """
    order = np.argsort(labels, kind="stable")
    tiles = np.empty(len(labels), np.int64)
    tiles[order] = np.cumsum(characters[order]) // (UNIT_CHARACTERS // 2)
    return tiles


def in_tiles(pairs: np.ndarray, tiles: np.ndarray) -> np.ndarray:
    """Return the rows (tile, tile, low, high) of pairs (n, 2), as columns, sorted."""
    ends = tiles[pairs]
    return sorted_rows(np.stack([ends.min(axis=1), ends.max(axis=1), pairs[:, 0], pairs[:, 1]]))


def order_candidates(unit: OrderUnit, folder: Path) -> dict[str, Any]:
    """Write sorted runs of (tile, tile, low, high)."""
    tiles = np.load(unit.tiles, mmap_mode="r")
    for path in sorted(unit.folder.glob("pairs-*.npy")):
        np.save(folder / path.name, in_tiles(np.load(path), tiles))
    return {}


def compare_candidates(unit: CompareUnit, folder: Path) -> dict[str, Any]:
    """Write a run of edges (low, high, intersection, union); union 0: not compared."""
    pairs = without_repeats(unit.candidates.read(), 4)[2:].T
    rows = np.zeros((len(pairs), 4), np.int64)
    rows[:, :2] = pairs
    if unit.threshold is not None:
        rows = verify_pairs(VerifyUnit(unit.texts, pairs, unit.threshold))
        rows = rows[(rows[:, 3] > 0) & at_least(rows[:, 2], rows[:, 3], unit.threshold)]
    np.save(folder / "edges.npy", sorted_rows(rows.T))
    return {"compared": len(pairs)}


def verify_pairs(unit: VerifyUnit) -> np.ndarray:
    """Verify any number of pairs, in stretches whose texts fit in memory.

    The cuts depend on the data only.
    """
    rows = [np.empty((0, 4), np.int64)]
    keys, places = np.unique(unit.pairs, return_inverse=True)
    characters = unit.texts.characters(keys)
    start = 0
    for end in cut_pairs(places.reshape(-1, 2), characters, UNIT_CHARACTERS).tolist():
        rows.append(verify(replace(unit, pairs=unit.pairs[start:end])))
        start = end
    return np.concatenate(rows)


def verify(unit: VerifyUnit) -> np.ndarray:
    """Return rows (low key, high key, intersection, union) in the unit's order.

    Two texts without shingles have an empty union. With a threshold the sizes of pairs that do not
    reach it may be anything that does not reach it.
    """
    keys, places = np.unique(unit.pairs, return_inverse=True)
    places = places.reshape(-1, 2)
    rows = np.empty((len(unit.pairs), 4), dtype=np.int64)
    rows[:, :2] = unit.pairs
    texts, characters = cleaned_texts(unit.texts.read(keys))
    if compiled() and characters.sum() <= UNIT_CHARACTERS:
        least = _share(unit.threshold or 0)
        intersections(
            texts.data, texts.starts, characters, places,
            LATIN_WORDS, np.uint64(WORD_KEY), least.numerator, least.denominator, rows[:, 2:],
        )  # fmt: skip
        return rows
    sets = distinct_hashes(texts, characters)
    for row, (low, high) in zip(rows, places.tolist(), strict=True):
        row[2] = intersection_size(sets[low], sets[high])
        row[3] = len(sets[low]) + len(sets[high]) - row[2]
    return rows


def intersection_size(first: np.ndarray, second: np.ndarray) -> int:
    """Count the values that two sorted arrays without repeats share."""
    merged = np.concatenate([first, second])
    merged.sort(kind="stable")  # merges two sorted runs in linear time
    return int(np.count_nonzero(merged[1:] == merged[:-1]))


def at_least(intersections: np.ndarray, unions: np.ndarray, threshold: float) -> np.ndarray:
    """Tell where intersection / union >= threshold, in integers: no floating-point ties."""
    share = _share(threshold)
    return intersections * share.denominator >= unions * share.numerator


def _share(threshold: float) -> Fraction:
    return Fraction(str(threshold)).limit_denominator(10**6)
