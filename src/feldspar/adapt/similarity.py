"""Weight old tokens by the similarity of their vectors to those of new tokens in another space."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from feldspar.adapt.new_rows import Combination

CHUNK_ENTRIES = 2**24
"""Number of cosines in memory at once."""


def topk_weights(cosines: Tensor, k: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Return indices (n, k) and softmax weights (n, k) of the k largest in each row of ``cosines``
    (n, V)."""
    nearest = cosines.topk(min(k, cosines.shape[1]), dim=1)
    return nearest.indices, torch.softmax(nearest.values / temperature, dim=1)


def sparsemax(scores: Tensor) -> Tensor:
    """Return the nearest distribution to each row of ``scores`` (n, V); most entries are 0
    (1602.02068)."""
    ordered = scores.sort(dim=1, descending=True).values
    places = torch.arange(1, scores.shape[1] + 1, dtype=scores.dtype)
    sums = ordered.cumsum(1) - 1
    support = (ordered * places > sums).sum(1, keepdim=True)
    threshold = sums.gather(1, support - 1) / support
    return (scores - threshold).clamp(min=0)


def similar_topk(
    new: Tensor, old: Tensor, old_ids: Tensor, k: int, temperature: float
) -> Combination:
    """Return for each ``new`` vector (n, a) the k nearest of the ``old`` vectors (V, a), whose
    tokens are ``old_ids``. No vector may be 0."""
    ids, weights = [], []
    for cosines in _cosines(new, old):
        places, found = topk_weights(cosines, k, temperature)
        ids += list(old_ids[places])
        weights += list(found)
    return Combination.of(ids, weights)


def focus(new: Tensor, old: Tensor, old_ids: Tensor) -> Combination:
    """Return the same as ``similar_topk``, but with the sparsemax of all cosines."""
    ids, weights = [], []
    for cosines in _cosines(new, old):
        for row in sparsemax(cosines):
            kept = row.nonzero().squeeze(1)
            ids.append(old_ids[kept])
            weights.append(row[kept])
    return Combination.of(ids, weights)


def _cosines(new: Tensor, old: Tensor) -> Iterator[Tensor]:
    directions = F.normalize(old.float(), dim=1)
    for part in new.float().split(max(1, CHUNK_ENTRIES // max(1, len(old)))):
        yield F.normalize(part, dim=1) @ directions.T
