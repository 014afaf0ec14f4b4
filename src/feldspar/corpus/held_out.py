"""Keep copies of held-out documents out of train, and count those that remain.

SlimPajama's scripts (2309.10818) drop from train the texts that equal a held-out text; near copies
stay. Here all copies of a document fall on one side of the split, and nothing has to be dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from feldspar.corpus.duplicates.components import component_labels
from feldspar.corpus.duplicates.edges import Edges
from feldspar.corpus.duplicates.exact import exact_edges
from feldspar.corpus.features import Features


@dataclass(frozen=True)
class Copies:
    """Documents of train with a copy among the held-out ones, and their UTF-8 bytes.

    ``near`` counts those without an exact copy; None where pairs were not sought.
    """

    exact: dict[str, int]
    near: dict[str, int] | None


def exact_clusters(features: Features, eligible: np.ndarray) -> np.ndarray:
    """Return for each document the first of equal cleaned text; only ``eligible`` ones join."""
    edges, _ = exact_edges(features.hashes, features.sources, np.flatnonzero(eligible))
    return component_labels(len(eligible), edges)


def copies_in_train(
    features: Features,
    texts: np.ndarray,
    kept: np.ndarray,
    splits: Sequence[str],
    edges: Edges | None,
) -> Copies:
    """Count documents of train that have a copy in validation or test; ``kept`` is a mask.

    ``texts`` are the ``exact_clusters``; ``edges`` all pairs of duplicates, in which one document
    may stand for others of equal text.
    """
    train = kept & (np.array(splits, dtype=object) == "train")
    held = np.zeros(len(texts), dtype=bool)
    held[texts[kept & ~train]] = True
    exact = train & held[texts]
    if edges is None:
        return Copies(_amount(features, exact), None)
    beside = np.zeros(len(texts), dtype=bool)
    for block in edges.blocks():
        low, high = texts[block.pairs].T
        beside[low[held[high]]] = True
        beside[high[held[low]]] = True
    near = train & ~exact & beside[texts]
    return Copies(_amount(features, exact), _amount(features, near))


def _amount(features: Features, mask: np.ndarray) -> dict[str, int]:
    return {"documents": int(mask.sum()), "bytes": int(features.sizes[mask].sum())}
