"""Bounds on what rounding alone can change, so that a tolerance is derived and not tuned.

A sum of n terms, added in any order, is off by more than DEVIATIONS * sqrt(n) units of roundoff of
its magnitudes with a probability below 2 n exp(-DEVIATIONS**2 / 2) (Higham and Mary, "A new
approach to probabilistic rounding error analysis", 2019, theorem 2.4). Terms of one sign add up to
the sum of their magnitudes. Terms of both signs add up to less, but then their roundings are those
of partial sums, which are no larger than the largest sum beside them. So the largest entry of a
tensor is the scale of its roundings.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

DEVIATIONS = 8.0
"""One sum in 10**13 is off by more, times its terms."""


def rounding(terms: int, dtype: torch.dtype, scale: float = 1.0) -> float:
    """Bound the difference of two sums of ``terms`` terms that only their order tells apart.

    ``scale`` is the size of the largest such sum. Each of the two is off by ``DEVIATIONS *
    sqrt(terms)`` units of roundoff, of which ``eps`` holds two.
    """
    return DEVIATIONS * math.sqrt(terms) * torch.finfo(dtype).eps * scale


def terms_of(model: nn.Module, tokens: Tensor) -> int:
    """Count the terms behind one number that comes out of ``model`` or of its backward pass.

    A product with a parameter sums over its inputs, and backward over its outputs. Attention, a
    norm over places and the gradient of a parameter sum over ``tokens``.
    """
    sums = (max(len(one), one.numel() // len(one)) + tokens.numel() for one in model.parameters())
    return 2 * sum(sums)


def assert_within_rounding(
    found: Tensor | Iterable[Tensor],
    expected: Tensor | Iterable[Tensor],
    terms: int,
    dtype: torch.dtype | None = None,
    scale: float | None = None,
) -> None:
    """Compare tensors one by one, each on the scale of its largest expected entry.

    ``dtype`` is what both were computed in; by default what the found tensor is stored in.
    """
    if not isinstance(found, Tensor) or not isinstance(expected, Tensor):
        for one, other in zip(found, expected, strict=True):
            assert_within_rounding(one, other, terms, dtype, scale)
        return
    if scale is None:
        scale = float(expected.detach().abs().max()) if expected.numel() else 0.0
    bound = rounding(terms, dtype or found.dtype, scale)
    torch.testing.assert_close(
        found.double(), expected.double(), rtol=0, atol=bound, check_stride=False
    )
