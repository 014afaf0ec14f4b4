"""Make new rows that do not depend on their tokens: means and random draws, in float32."""

import torch
from torch import Tensor


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
