"""New rows as weighted sums of old rows: weights found once, then used for input and output."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Decompositions = Sequence[Sequence[int]]
"""Of each new token, the ids of the old pieces that it was cut into before; at least one."""


@dataclass(frozen=True)
class Combination:
    """Sparse weights of new tokens over old ones."""

    ids: Tensor
    """Old ids of all new tokens, one after the other, i64."""
    weights: Tensor
    """Of each of them, float32."""
    counts: Tensor
    """How many belong to each new token, i64."""

    @classmethod
    def of(cls, ids: Sequence[Tensor], weights: Sequence[Tensor]) -> "Combination":
        """From each new token's own ids and weights."""
        counts = torch.tensor([len(part) for part in ids], dtype=torch.int64)
        if not len(counts):
            return cls(counts, torch.empty(0), counts)
        return cls(torch.cat(list(ids)), torch.cat(list(weights)).float(), counts)

    def rows(self, old: Tensor) -> Tensor:
        """Return the new rows (n, d) from the ``old`` (V, d), in float32."""
        offsets = self.counts.cumsum(0) - self.counts
        wide = old.float()
        if not len(self.counts):
            return wide.new_empty((0, wide.shape[1]))
        return F.embedding_bag(self.ids, wide, offsets, mode="sum", per_sample_weights=self.weights)


def subword_mean(decompositions: Decompositions) -> Combination:
    """Return the plain mean of each token's old pieces."""
    ids = [torch.tensor(pieces, dtype=torch.int64) for pieces in decompositions]
    return Combination.of(ids, [torch.full((len(part),), 1 / len(part)) for part in ids])
