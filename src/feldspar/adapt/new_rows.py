"""Make new rows: weighted sums of old rows (one set of weights for both matrices), or draws."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Decompositions = Sequence[Sequence[int]]
"""Ids of the old tokens that spell each new token; at least one for each."""


@dataclass(frozen=True)
class Combination:
    """Sparse weights of new tokens over old ones."""

    ids: Tensor
    """Old ids of all new tokens in a row, i64."""
    weights: Tensor
    """Weight of each id, float32."""
    counts: Tensor
    """Number of ids of each new token, i64."""

    @classmethod
    def of(cls, ids: Sequence[Tensor], weights: Sequence[Tensor]) -> "Combination":
        """Return the combination of each new token's own ids and weights."""
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
    """Return the plain mean of the old tokens that spell each new token."""
    ids = [torch.tensor(pieces, dtype=torch.int64) for pieces in decompositions]
    return Combination.of(ids, [torch.full((len(part),), 1 / len(part)) for part in ids])


def random_rows(count: int, d_model: int, std: float, generator: torch.Generator) -> Tensor:
    """Return normal rows with mean 0."""
    return torch.empty(count, d_model).normal_(0.0, std, generator=generator)


def mean_rows(old: Tensor, count: int) -> Tensor:
    """Return ``count`` copies of the mean of the ``old`` rows (V, d)."""
    return old.float().mean(0).repeat(count, 1)


def normal_matched_rows(old: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return normal rows with the mean and variance of the ``old`` rows (V, d) in each
    dimension."""
    wide = old.float()
    noise = torch.randn(count, wide.shape[1], generator=generator)
    return wide.mean(0) + noise * wide.std(0, correction=0)


def mean_covariance_rows(
    old: Tensor, count: int, share: float, generator: torch.Generator
) -> Tensor:
    """Return normal rows with the mean of the ``old`` rows (V, d) and ``share`` times their
    covariance."""
    wide = old.double()
    mean = wide.mean(0)
    centred = wide - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(wide))
    # Rounding may turn an eigenvalue of 0 into a small negative number.
    scale = (share * values.clamp(min=0)).sqrt()
    noise = torch.randn(count, wide.shape[1], generator=generator, dtype=torch.float64)
    return (mean + (noise * scale) @ vectors.T).float()
