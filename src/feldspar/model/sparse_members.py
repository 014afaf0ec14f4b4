"""The linear maps of Sparse-IFT (2303.11525, section 2) in place of the blocks' matrices.

With w, u and v for matrices, s for the sparsity, and n_in and n_out for the sizes of the dense map:

* Sparse Parallel: the sum of 1 / (1 - s) branches f(w x). Without a nonlinearity of their own, the
  branches would be one matrix. f halves what is negative: unlike ReLU it leaves queries, values and
  what is written to the residual stream free to be negative, and unlike a norm it keeps their size.
* Sparse Factorized: v f(norm(u x)), where f is the nonlinearity of the feed-forward layer. The norm
  keeps the input of f at the scale where f bends.
* Sparse Doped: w x + v u x, where only w is sparse.

Sparse Wide has plain matrices: ``recipe.sections.iso_flop`` widens the model.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feldspar.core.rows import FanIn, ParameterRole, Role
from feldspar.model.layers import Linear, make_norm
from feldspar.model.nonlinearities import ACTIVATIONS
from feldspar.recipe.sections.model import ModelSettings

SLOPE = 0.5
"""Slope of Sparse Parallel's nonlinearity below 0; above 0 it is 1."""


def make_linear(
    settings: ModelSettings,
    n_in: int,
    n_out: int,
    bias: bool,
    role: ParameterRole,
    between: FanIn = FanIn.D_MODEL,
) -> nn.Module:
    """Return a map from (..., n_in) to (..., n_out): one matrix, or what sparse_iso_flop makes of
    it.

    ``between`` is the dimension that a width between n_in and n_out grows with.
    """
    member = settings.sparse_iso_flop
    if member is None or member.type == "wide":
        return Linear(n_in, n_out, bias, role)
    if member.type == "parallel":
        return ParallelLinear(n_in, n_out, bias, role, member.branches)
    if member.type == "factorized":
        width = member.factorized_width(n_in, n_out)
        return FactorizedLinear(settings, (n_in, width, n_out), bias, role, between)
    rank = member.doped_rank(n_in, n_out)
    return DopedLinear((n_in, rank, n_out), bias, role, between)


class ParallelLinear(nn.Module):
    """The sum of branches f(w x), where f halves what is negative."""

    def __init__(
        self, n_in: int, n_out: int, bias: bool, role: ParameterRole, n_branches: int
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(Linear(n_in, n_out, bias, role) for _ in range(n_branches))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n_in) to (..., n_out)."""
        first, *others = self.branches
        out = F.leaky_relu(first(x), SLOPE)
        for branch in others:
            out = out + F.leaky_relu(branch(x), SLOPE)
        return out


class FactorizedLinear(nn.Module):
    """v f(norm(u x)), through a width that is larger the sparser u and v are."""

    def __init__(
        self,
        settings: ModelSettings,
        widths: tuple[int, int, int],
        bias: bool,
        role: ParameterRole,
        between: FanIn,
    ) -> None:
        super().__init__()
        n_in, inner, n_out = widths
        self.activation = ACTIVATIONS[settings.feed_forward]
        self.u = Linear(n_in, inner, False, ParameterRole(Role.HIDDEN, role.fan_in))
        self.norm = make_norm(inner, settings)
        self.v = Linear(inner, n_out, bias, replace(role, fan_in=between))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n_in) to (..., n_out)."""
        inner = self.u(x)
        # Autocast would widen what the norm gives.
        return self.v(self.activation(self.norm(inner).to(inner.dtype)))


class DopedLinear(nn.Module):
    """w x + v u x: a sparse matrix, and a dense one of low rank."""

    def __init__(
        self, widths: tuple[int, int, int], bias: bool, role: ParameterRole, between: FanIn
    ) -> None:
        super().__init__()
        n_in, rank, n_out = widths
        dense = replace(role, maskable=False)
        self.w = Linear(n_in, n_out, bias, role)
        self.u = Linear(n_in, rank, False, replace(dense, writes_residual=False))
        self.v = Linear(rank, n_out, False, replace(dense, fan_in=between))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n_in) to (..., n_out)."""
        return torch.add(self.w(x), self.v(self.u(x)))
