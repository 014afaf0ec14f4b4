"""Sums without rounding: streams and additions are on the grid of multiples of 2^-q.

Sums of grid values are exact in floating point below 2^(m - q), where m is the number of bits of
the significand (24 in float32). Then ``y - f`` restores ``x`` bit for bit, and a function that is
computed again gets exactly the same inputs.
"""

import math
from typing import Any, cast

import torch
from torch import Tensor

from feldspar.core.errors import RunError


class _RoundToGrid(torch.autograd.Function):
    """Rounding with the identity as its gradient, because the grid is far finer than learned
    changes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, bits: int) -> Tensor:
        return values.mul(2.0**bits).round_().mul_(2.0**-bits)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def round_to_grid(values: Tensor, bits: int) -> Tensor:
    """Return the nearest multiple of 2^-bits to each value."""
    return cast(Tensor, _RoundToGrid.apply(values, bits))


def exact_limit(dtype: torch.dtype, bits: int) -> float:
    """Return the magnitude below which sums on the grid are exact."""
    return 2.0 / torch.finfo(dtype).eps * 2.0**-bits


def require_exact(sums: Tensor, bits: int, where: str) -> None:
    """Raise RunError if a sum reaches the limit; waits for the device.

    NaN and infinity are passed on, as without a grid, so that the guards of a training step see
    them. On the meta device and in an exported program there are no values to compare.
    """
    if sums.is_meta or torch.compiler.is_exporting():
        return
    limit, found = exact_limit(sums.dtype, bits), sums.detach().abs().amax().item()
    if limit <= found < math.inf:
        raise RunError(
            f"a stream reached {found:.6g}, but on the grid 2^-{bits} sums are exact only "
            f"below {limit:.6g}",
            where=where,
            do="use fewer fixed_point_bits",
        )
