"""Find candidate pairs: documents whose sketches agree in a whole band (LSH banding).

Band keys go through sorted runs on disk.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import floor, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from feldspar.core.streams import hash_integers
from feldspar.corpus.duplicates.exact import canonical_pairs
from feldspar.corpus.duplicates.runs import Range, sorted_rows
from feldspar.corpus.duplicates.sketch import SKETCH_VALUES
from feldspar.corpus.duplicates.sketch_files import SketchFiles
from feldspar.corpus.duplicates.verify import TextFiles, VerifyUnit, at_least, verify_pairs
from feldspar.recipe.sections.corpus import Banding


def band_keys(sketches: np.ndarray, banding: Banding) -> np.ndarray:
    """Hash each band's number and values to 64-bit keys (bands, documents)."""
    keys = np.arange(banding.bands, dtype=np.uint64)[:, None]
    used = sketches[:, : banding.bands * banding.rows].T
    for values in used.reshape(banding.bands, banding.rows, len(sketches)).swapaxes(0, 1):
        keys = hash_integers(hash_integers(keys, 0) ^ values.astype(np.uint64), 0)
    return keys


def band_groups(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the starts and lengths of runs of two or more equal keys in sorted ``keys``."""
    borders = np.flatnonzero(keys[1:] != keys[:-1]) + 1
    starts = np.concatenate([[0], borders])
    sizes = np.diff(np.concatenate([starts, [len(keys)]]))
    shared = sizes > 1
    return starts[shared], sizes[shared]


def all_pairs(groups: np.ndarray) -> np.ndarray:
    """Return every pair of each of ``groups`` (groups, size), earlier members first."""
    first, second = np.triu_indices(groups.shape[1], k=1)
    return np.stack([groups[:, first].reshape(-1), groups[:, second].reshape(-1)], axis=1)


def star_pairs(groups: np.ndarray) -> np.ndarray:
    """Pair each later document of each of ``groups`` (groups, size) with the first one."""
    later = groups[:, 1:]
    first = np.broadcast_to(groups[:, :1], later.shape)
    return np.stack([first.reshape(-1), later.reshape(-1)], axis=1)


ALL_PAIRS_LIMIT = 256
"""Band groups of more documents become stars around their first documents."""
ALL_PAIRS_OF_UNLIKE = 1448
"""As many documents are paired with each other (a million pairs) where stars take few away."""
FEW = 1 / 16
"""Share of a group; a star that takes less away shows that most documents are not duplicates."""
STAR_PAIRS = 1 << 18
"""Pairs that the stars of a giant group may try; what is left then is counted as unpaired."""
_PAIRS = 1 << 16
"""Pairs that are filtered together."""


@dataclass(frozen=True)
class BandUnit:
    """Sketches of consecutive parts; ``members``: the file of a mask of documents to consider."""

    sketches: SketchFiles
    members: Path
    banding: Banding


@dataclass(frozen=True)
class CandidateUnit:
    """A range of band keys. Files hold at most ``rows`` pairs."""

    records: Range
    sketches: SketchFiles
    texts: TextFiles
    banding: Banding
    threshold: float
    rows: int


def least_agreement(threshold: float) -> int:
    """Return how many of 128 values a pair must share to be checked: threshold - 4.5 sigma."""
    deviation = sqrt(threshold * (1 - threshold) / SKETCH_VALUES)
    return max(0, floor(SKETCH_VALUES * (threshold - 4.5 * deviation)))


def write_band_records(unit: BandUnit, folder: Path) -> dict[str, Any]:
    """Write a run of (band key, document), both u64; the key holds the band's number."""
    members = np.load(unit.members, mmap_mode="r")
    pieces = [np.empty((2, 0), np.uint64)]
    for start, sketches in unit.sketches:
        own = np.flatnonzero(members[start : start + len(sketches)])
        values = sketches[own]
        documents = (own + start).astype(np.uint64)
        keys = band_keys(values, unit.banding)
        pieces.append(np.stack([keys, np.broadcast_to(documents, keys.shape)]).reshape(2, -1))
    rows = np.concatenate(pieces, axis=1)
    np.save(folder / "records.npy", sorted_rows(rows))
    return {"records": rows.shape[1]}


def write_candidates(unit: CandidateUnit, folder: Path) -> dict[str, Any]:
    """Write files of pairs (n, 2) that share a band of the range, each pair once a file.

    A banding whose pairs are checked gives all pairs of a group, filtered by agreement. A banding
    without checks gives the published star: each document with the first of its group. The counts
    hold how many there were before the filter, and giant groups.
    """
    counts = {"unfiltered": 0, "giant_groups": 0, "unpaired": 0}
    least = least_agreement(unit.threshold) if unit.banding.verified else 0
    kept, size, number = [np.empty((0, 2), np.int64)], 0, 0
    for pairs in _gathered(_pairs(unit, least, counts)):
        counts["unfiltered"] += len(pairs)
        close = pairs if least == 0 else pairs[unit.sketches.agreements(pairs) >= least]
        kept.append(close)
        size += len(close)
        if size >= unit.rows:
            np.save(folder / f"pairs-{number:05d}.npy", canonical_pairs(np.concatenate(kept)))
            kept, size, number = [np.empty((0, 2), np.int64)], 0, number + 1
    np.save(folder / f"pairs-{number:05d}.npy", canonical_pairs(np.concatenate(kept)))
    return counts


def _pairs(unit: CandidateUnit, least: int, counts: dict[str, int]) -> Iterator[np.ndarray]:
    """Yield the pairs of all groups in arrays of about ``_PAIRS``, small groups by size."""
    records = unit.records.read()
    documents = records[1].astype(np.int64)
    starts, sizes = band_groups(records[0])
    pair = all_pairs if unit.banding.verified else star_pairs
    for size in np.unique(sizes).tolist():
        own = starts[sizes == size]
        if unit.banding.verified and size > ALL_PAIRS_LIMIT:
            counts["giant_groups"] += len(own)
            for start in own.tolist():
                group = documents[start : start + size]
                yield from _stars(group, unit, least, counts)
            continue
        at_once = max(1, 2 * _PAIRS // (size * (size - 1)))
        for first in range(0, len(own), at_once):
            groups = own[first : first + at_once, None] + np.arange(size)
            yield pair(documents[groups])


def _gathered(pieces: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the same pairs in arrays of about ``_PAIRS``."""
    gathered: list[np.ndarray] = []
    size = 0
    for piece in pieces:
        gathered.append(piece)
        size += len(piece)
        if size >= _PAIRS:
            yield np.concatenate(gathered)
            gathered, size = [], 0
    if gathered:
        yield np.concatenate(gathered)


def _stars(
    group: np.ndarray, unit: CandidateUnit, least: int, counts: dict[str, int]
) -> Iterator[np.ndarray]:
    """Yield stars around the first document, then around the first that it rejects, and so on.

    A document leaves the group once its exact similarity to a star's first document reaches the
    threshold: what only looks similar may be a duplicate of another one. Neighbours in the group
    are joined too. Once few enough are left, all their pairs are taken.
    """
    yield np.stack([group[:-1], group[1:]], axis=1)
    limit, left = ALL_PAIRS_LIMIT, STAR_PAIRS
    while len(group) > limit:
        left -= len(group) - 1
        if left < 0:
            counts["unpaired"] += len(group)
            return
        star = star_pairs(group[None])
        close = np.flatnonzero(unit.sketches.agreements(star) >= least)
        rows = verify_pairs(VerifyUnit(unit.texts, star[close], unit.threshold))
        similar = close[(rows[:, 3] > 0) & at_least(rows[:, 2], rows[:, 3], unit.threshold)]
        counts["unfiltered"] += len(star) - len(similar)
        yield star[similar]
        if len(similar) < FEW * len(group):
            limit = ALL_PAIRS_OF_UNLIKE
        group = np.delete(group[1:], similar)
    for position in range(len(group) - 1):
        yield star_pairs(group[None, position:])
