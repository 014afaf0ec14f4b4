"""Candidate pairs: documents whose sketches agree in a whole band of values (LSH banding)."""

import numpy as np

from feldspar.core.streams import hash_integers
from feldspar.recipe.sections.corpus import Banding


def band_keys(sketches: np.ndarray, banding: Banding) -> np.ndarray:
    """64-bit keys (bands, documents): hashes of a band's number and its values in order."""
    keys = np.arange(banding.bands, dtype=np.uint64)[:, None]
    used = sketches[:, : banding.bands * banding.rows].T
    for values in used.reshape(banding.bands, banding.rows, len(sketches)).swapaxes(0, 1):
        keys = hash_integers(hash_integers(keys, 0) ^ values.astype(np.uint64), 0)
    return keys


def band_groups(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where runs of two or more equal keys begin in sorted ``keys``, and how long they are."""
    borders = np.flatnonzero(keys[1:] != keys[:-1]) + 1
    starts = np.concatenate([[0], borders])
    sizes = np.diff(np.concatenate([starts, [len(keys)]]))
    shared = sizes > 1
    return starts[shared], sizes[shared]


def all_pairs(groups: np.ndarray) -> np.ndarray:
    """Every pair of each of ``groups`` (groups, size), the one that comes first in it first."""
    first, second = np.triu_indices(groups.shape[1], k=1)
    return np.stack([groups[:, first].reshape(-1), groups[:, second].reshape(-1)], axis=1)


def star_pairs(groups: np.ndarray) -> np.ndarray:
    """Each later document of each of ``groups`` (groups, size) with the first."""
    later = groups[:, 1:]
    first = np.broadcast_to(groups[:, :1], later.shape)
    return np.stack([first.reshape(-1), later.reshape(-1)], axis=1)
