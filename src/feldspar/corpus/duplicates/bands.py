"""Candidate pairs: documents whose sketches agree in a whole band of values (LSH banding)."""

from collections.abc import Iterator

import numpy as np

from feldspar.core.streams import hash_integers
from feldspar.corpus.duplicates.banding import Banding


def band_keys(sketches: np.ndarray, band: int, banding: Banding) -> np.ndarray:
    """One 64-bit key a document: a hash of the band's number and its values in order."""
    keys = np.full(len(sketches), band, dtype=np.uint64)
    for row in range(band * banding.rows, (band + 1) * banding.rows):
        keys = hash_integers(hash_integers(keys, 0) ^ sketches[:, row].astype(np.uint64), 0)
    return keys


def band_groups(keys: np.ndarray, documents: np.ndarray) -> Iterator[np.ndarray]:
    """The documents that share a key, two or more; keys are sorted, documents within a key too."""
    borders = np.flatnonzero(keys[1:] != keys[:-1]) + 1
    starts = np.concatenate([[0], borders])
    ends = np.concatenate([borders, [len(keys)]])
    shared = ends - starts > 1
    for start, end in zip(starts[shared], ends[shared], strict=True):
        yield documents[start:end]


def all_pairs(group: np.ndarray) -> np.ndarray:
    """Every pair of a group, smaller key first."""
    first, second = np.triu_indices(len(group), k=1)
    return np.stack([group[first], group[second]], axis=1)


def star_pairs(group: np.ndarray) -> np.ndarray:
    """Each later document of a group with the first."""
    return np.stack([np.full(len(group) - 1, group[0]), group[1:]], axis=1)
