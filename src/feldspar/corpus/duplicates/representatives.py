"""Clusters without chaining: each dropped document is itself similar to the one that is kept."""

from collections.abc import Callable

import numpy as np


def representatives(
    labels: np.ndarray, order: np.ndarray, similar: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """For each document the key of the one that stands for it, itself when kept.

    The most preferred document of a component (``order``, see ``survivors.preference``) stands for
    those that ``similar`` says are like it; the rest of the component elects again, until none is
    left. ``similar`` takes pairs (n, 2) of a representative and another member and gives a mask.
    """
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    keepers = np.arange(len(labels))
    rest = np.flatnonzero(np.bincount(labels, minlength=len(labels))[labels] > 1)
    while len(rest):
        best = np.full(len(labels), len(labels), dtype=np.int64)
        np.minimum.at(best, labels[rest], ranks[rest])
        elected = order[best[labels[rest]]]
        others = elected != rest
        pairs = np.stack([elected[others], rest[others]], axis=1)
        alike = similar(pairs)
        keepers[pairs[alike, 1]] = pairs[alike, 0]
        rest = pairs[~alike, 1]
    return keepers
