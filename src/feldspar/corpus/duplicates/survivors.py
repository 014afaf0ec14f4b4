"""Which document of a cluster is kept."""

from collections.abc import Sequence
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
    """All document keys, the most preferred first: one total order a run.

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
    """For each document the key of the one kept of its cluster: the first in ``order``."""
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    best = np.full(len(labels), len(labels), dtype=np.int64)
    np.minimum.at(best, labels, ranks)
    return order[best[labels]]
