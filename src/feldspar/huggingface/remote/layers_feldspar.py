"""Norms, nonlinearities and linear maps of the blocks, those of Sparse-IFT included."""

import math
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .configuration_feldspar import FeldsparConfig


def wide_dtype(x: Tensor) -> torch.dtype:
    """Return float32, or float64 where x has it: tables and norms are computed in it."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


class RMSNorm(nn.RMSNorm):
    """Division by the root mean square in float32 at least, then a gain: weight plus offset."""

    def __init__(self, width: int, epsilon: float, offset: float) -> None:
        super().__init__(width, epsilon)
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        wide = wide_dtype(x)
        gain = self.weight.to(wide) + self.offset
        return F.rms_norm(x.to(wide), self.normalized_shape, gain, self.eps).to(x.dtype)


def make_norm(config: FeldsparConfig, width: int | None = None) -> nn.Module:
    """Return the norm that the configuration names, over ``width`` or hidden_size dimensions."""
    width = config.hidden_size if width is None else width
    if config.norm_type == "rms":
        return RMSNorm(width, config.norm_epsilon, float(config.norm_unit_offset))
    return nn.LayerNorm(width, eps=config.norm_epsilon, bias=config.has_bias("norm"))


def normalised(norm: nn.Module | None, x: Tensor) -> Tensor:
    """Apply a norm that a model may lack."""
    return x if norm is None else norm(x)


def activation(x: Tensor, kind: str) -> Tensor:
    """Return the nonlinearity of a kind of feed-forward layer."""
    if kind == "swiglu":
        return F.silu(x)
    if kind == "relu":
        return F.relu(x)
    return F.gelu(x, approximate="none" if kind.endswith("_erf") else "tanh")


def make_linear(config: FeldsparConfig, n_in: int, n_out: int, bias: bool) -> nn.Module:
    """Return one matrix, or what Sparse-IFT (2303.11525) puts in its place."""
    member = config.iso_flop
    if member is None:
        return nn.Linear(n_in, n_out, bias=bias)
    sparsity = Fraction(repr(member["sparsity"]))
    if member["type"] == "parallel":
        return Parallel(n_in, n_out, bias, round(1 / (1 - sparsity)))
    harmonic = Fraction(n_in * n_out, n_in + n_out)
    if member["type"] == "factorized":
        return Factorized(config, (n_in, math.ceil(harmonic / (1 - sparsity)), n_out), bias)
    return Doped((n_in, math.floor(sparsity * harmonic), n_out), bias)


class Parallel(nn.Module):
    """The sum of branches f(w x), where f halves what is negative."""

    def __init__(self, n_in: int, n_out: int, bias: bool, n_branches: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Linear(n_in, n_out, bias=bias) for _ in range(n_branches))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n_in) to (..., n_out)."""
        first, *others = self.branches
        out = F.leaky_relu(first(x), 0.5)
        for branch in others:
            out = out + F.leaky_relu(branch(x), 0.5)
        return out


class Factorized(nn.Module):
    """v f(norm(u x)), with the nonlinearity f of the feed-forward layer."""

    def __init__(self, config: FeldsparConfig, widths: tuple[int, int, int], bias: bool) -> None:
        super().__init__()
        n_in, inner, n_out = widths
        self.kind = config.feed_forward
        self.u = nn.Linear(n_in, inner, bias=False)
        self.norm = make_norm(config, inner)
        self.v = nn.Linear(inner, n_out, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n_in) to (..., n_out)."""
        return self.v(activation(self.norm(self.u(x)), self.kind))


class Doped(nn.Module):
    """w x + v u x."""

    def __init__(self, widths: tuple[int, int, int], bias: bool) -> None:
        super().__init__()
        n_in, rank, n_out = widths
        self.w = nn.Linear(n_in, n_out, bias=bias)
        self.u = nn.Linear(n_in, rank, bias=False)
        self.v = nn.Linear(rank, n_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n_in) to (..., n_out)."""
        return self.w(x) + self.v(self.u(x))
