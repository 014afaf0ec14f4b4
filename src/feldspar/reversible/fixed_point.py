"""Sums without rounding: streams and what is added to them lie on the grid of multiples of 2^-q.

Sums of grid values are exact in floating point while they stay below 2^(m - q), m being the bits of
the type's significand (24 in float32); then ``y - f`` gives back ``x`` bit for bit, and a
function that is computed again sees the very inputs it saw before.
"""

from typing import Any, cast

import torch
from torch import Tensor

from feldspar.core.errors import RunError


class _RoundToGrid(torch.autograd.Function):
    """Rounding whose gradient is the identity: the grid is far finer than what is learned."""

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


def require_exact(sums: Tensor, bits: int) -> None:
    """Raise RunError unless every sum is below the limit; waits for the device.

    On the meta device there are no values to compare.
    """
    if sums.is_meta:
        return
    limit, found = exact_limit(sums.dtype, bits), sums.detach().abs().amax().item()
    if not found < limit:
        raise RunError(
            f"a stream reached {found:.6g}; on the grid 2^-{bits} sums are exact below {limit:.6g}",
            do="use fewer fixed_point_bits",
        )
