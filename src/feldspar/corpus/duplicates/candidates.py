"""From sketches to candidate pairs, with a pre-filter and a bound on giant groups."""

from dataclasses import dataclass
from math import floor, sqrt

import numpy as np

from feldspar.corpus.duplicates.banding import Banding
from feldspar.corpus.duplicates.bands import (
    all_pairs,
    band_groups,
    band_keys,
    star_pairs,
)
from feldspar.corpus.duplicates.exact import canonical_pairs
from feldspar.corpus.duplicates.sketch import SKETCH_VALUES, agreement

ALL_PAIRS_LIMIT = 256
"""Band groups of more documents become stars around their first documents."""
STAR_LIMIT = 256
"""So many stars a giant group may need; what is left then stays unpaired and is counted."""


@dataclass(frozen=True)
class Candidates:
    """Pairs (n, 2) of document keys, how many there were before the filter, and giant groups."""

    pairs: np.ndarray
    unfiltered: int
    giant_groups: int
    unpaired: int


def least_agreement(threshold: float) -> int:
    """How many of the 128 values a pair must share to be checked: 4.5 sigma below the threshold."""
    deviation = sqrt(threshold * (1 - threshold) / SKETCH_VALUES)
    return max(0, floor(SKETCH_VALUES * (threshold - 4.5 * deviation)))


def find_candidates(
    documents: np.ndarray, sketches: np.ndarray, banding: Banding, threshold: float
) -> Candidates:
    """The pairs that share a band; ``sketches[i]`` belongs to document key ``documents[i]``.

    A banding whose pairs are checked gives all pairs of a group, filtered by agreement; one whose
    pairs are not gives the published star: each document with the first of its group.
    """
    if len(documents) < 2:
        return Candidates(np.empty((0, 2), np.int64), 0, 0, 0)
    positions = np.arange(len(documents))
    least = least_agreement(threshold) if banding.verified else 0
    found = np.empty((0, 2), np.int64)
    unfiltered = giant = unpaired = 0
    for band in range(banding.bands):
        pairs = []
        for group in band_groups(band_keys(sketches, band, banding), positions):
            if not banding.verified:
                pairs.append(star_pairs(group))
            elif len(group) <= ALL_PAIRS_LIMIT:
                pairs.append(all_pairs(group))
            else:
                giant += 1
                stars, left = _stars(group, sketches, least)
                pairs.append(stars)
                unpaired += left
        if pairs:
            new = np.concatenate(pairs)
            unfiltered += len(new)
            found = canonical_pairs(np.concatenate([found, _similar(new, sketches, least)]))
    return Candidates(documents[found], unfiltered, giant, unpaired)


def _similar(pairs: np.ndarray, sketches: np.ndarray, least: int) -> np.ndarray:
    if least == 0:
        return pairs
    kept = []
    for start in range(0, len(pairs), 1 << 16):
        block = pairs[start : start + (1 << 16)]
        kept.append(block[agreement(sketches[block[:, 0]], sketches[block[:, 1]]) >= least])
    return np.concatenate(kept) if kept else pairs


def _stars(group: np.ndarray, sketches: np.ndarray, least: int) -> tuple[np.ndarray, int]:
    """Stars around the first document, then around the first of those it rejected, and so on.

    Neighbours in the group are joined too. Once few enough are left, all their pairs are taken.
    """
    pairs = [np.stack([group[:-1], group[1:]], axis=1)]
    for _ in range(STAR_LIMIT):
        if len(group) <= ALL_PAIRS_LIMIT:
            pairs.append(all_pairs(group))
            return np.concatenate(pairs), 0
        star = star_pairs(group)
        pairs.append(star)
        alike = agreement(sketches[star[:, 0]], sketches[star[:, 1]])
        group = group[1:][alike < least]
    return np.concatenate(pairs), len(group)
