"""Copies of held-out documents in train: what joins documents for the split, and what that leaves.

SlimPajama's scripts (2309.10818) drop from train what equals a held-out text: near copies stay.
Here all that counts as a copy falls on one side of the split, and nothing need be dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from feldspar.corpus.duplicates.edges import Edges
from feldspar.corpus.features import Features


@dataclass(frozen=True)
class Copies:
    """Documents of train with a copy among the held-out ones, and their UTF-8 bytes.

    ``near`` counts those without an exact copy; None where pairs were not sought.
    """

    exact: dict[str, int]
    near: dict[str, int] | None


def exact_clusters(hashes: np.ndarray, eligible: np.ndarray) -> np.ndarray:
    """For each document the first of equal cleaned text; others than ``eligible`` stay alone."""
    labels = np.arange(len(hashes))
    keys = np.flatnonzero(eligible)
    _, first, text = np.unique(hashes[keys], axis=0, return_index=True, return_inverse=True)
    labels[keys] = keys[first[text.reshape(-1)]]
    return labels


def copies_in_train(
    features: Features, kept: np.ndarray, splits: Sequence[str], edges: Edges | None
) -> Copies:
    """What of train, by ``splits``, has a copy in validation or test; ``kept`` is a mask.

    ``edges`` are all pairs of duplicates, in which one document may stand for others of equal text.
    """
    texts = np.unique(features.hashes, axis=0, return_inverse=True)[1].reshape(-1)
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
