"""The linear maps of Sparse-IFT (2303.11525, section 2) in place of the blocks' matrices.

With w, u and v for matrices, s for the sparsity, and n_in and n_out for the sizes of the dense map:

* Sparse Parallel: the sum of 1 / (1 - s) branches norm(w x). Without a nonlinearity of their own,
  the branches would be one matrix. A norm is one that the authors use, and unlike GELU or ReLU it
  leaves queries, values and what is written to the residual stream free to be negative.
* Sparse Factorized: v f(norm(u x)), where f is the nonlinearity of the feed-forward layer. The norm
  keeps the input of f at the scale where f bends.
* Sparse Doped: w x + v u x, where only w is sparse.

Sparse Wide has plain matrices: ``recipe.sections.iso_flop`` widens the model.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from feldspar.core.rows import FanIn, ParameterRole, Role
from feldspar.model.layers import Linear, make_norm
from feldspar.model.nonlinearities import ACTIVATIONS
from feldspar.recipe.sections.model import ModelSettings


def make_linear(
    settings: ModelSettings,
    n_in: int,
    n_out: int,
    bias: bool,
    role: ParameterRole,
    between: FanIn = FanIn.D_MODEL,
) -> nn.Module:
    """Return a map from (..., n_in) to (..., n_out): one matrix, or what iso_flop makes of it.

    ``between`` is the dimension that a width between n_in and n_out grows with.
    """
    member = settings.iso_flop
    if member is None or member.type == "wide":
        return Linear(n_in, n_out, bias, role)
    if member.type == "parallel":
        return ParallelLinear(settings, n_in, n_out, bias, role, member.branches)
    if member.type == "factorized":
        width = member.factorized_width(n_in, n_out)
        return FactorizedLinear(settings, (n_in, width, n_out), bias, role, between)
    rank = member.doped_rank(n_in, n_out)
    return DopedLinear((n_in, rank, n_out), bias, role, between)


class ParallelLinear(nn.Module):
    """The sum of branches norm(w x); the gains begin at 1 / sqrt(branches)."""

    def __init__(
        self,
        settings: ModelSettings,
        n_in: int,
        n_out: int,
        bias: bool,
        role: ParameterRole,
        n_branches: int,
    ) -> None:
        super().__init__()
        # The norm sets the scale of what the block writes, not the matrix.
        role = replace(role, writes_residual=False)
        self.branches = nn.ModuleList(
            NormalisedLinear(settings, n_in, n_out, bias, role, n_branches**-0.5)
            for _ in range(n_branches)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n_in) to (..., n_out)."""
        first, *others = self.branches
        out = first(x)
        for branch in others:
            out = out + branch(x)
        return out


class NormalisedLinear(nn.Module):
    """norm(w x), with a norm of the decoder's kind whose gain begins at ``gain``."""

    def __init__(
        self,
        settings: ModelSettings,
        n_in: int,
        n_out: int,
        bias: bool,
        role: ParameterRole,
        gain: float,
    ) -> None:
        super().__init__()
        self.w = Linear(n_in, n_out, bias, role)
        self.norm = make_norm(n_out, settings, gain)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., n_in) to (..., n_out)."""
        return _normal(self.norm, self.w(x))


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
        return self.v(self.activation(_normal(self.norm, self.u(x))))


def _normal(norm: nn.Module, x: Tensor) -> Tensor:
    """Normalise; the result keeps the type of a product where autocast would widen it."""
    return norm(x).to(x.dtype)


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
