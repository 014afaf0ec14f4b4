"""Choose the document of a cluster that is kept: one of the cluster, or one for those like it."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

Keep = Literal["first", "longest", "source_priority", "highest"]


def preference(
    keep: Keep,
    sources: np.ndarray,
    lengths: np.ndarray,
    priority: Sequence[int],
    quality: np.ndarray,
) -> np.ndarray:
    """Order all document keys, the most preferred first: one total order a run.

    ``first``: by key. ``longest``: by length, then key. ``source_priority``: by the place of the
    source's rank in ``priority`` (those not named come after), then length, then key.
    ``highest``: by ``quality`` (NaN comes last), then key.
    """
    keys = np.arange(len(sources))
    if keep == "first":
        return keys
    if keep == "longest":
        return np.lexsort((keys, -lengths))
    if keep == "highest":
        return np.lexsort((keys, -quality))
    ranks = max([int(sources.max(initial=-1)), *priority]) + 1
    places = np.full(ranks, len(priority), dtype=np.int64)
    for place, source in enumerate(priority):
        places[source] = place
    return np.lexsort((keys, -lengths, places[sources]))


def survivors(labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return for each document the key that is kept of its cluster: the first in ``order``."""
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    best = np.full(len(labels), len(labels), dtype=np.int64)
    np.minimum.at(best, labels, ranks)
    return order[best[labels]]


def representatives(
    labels: np.ndarray, order: np.ndarray, similar: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return for each document the key of its representative, which is itself when kept.

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
