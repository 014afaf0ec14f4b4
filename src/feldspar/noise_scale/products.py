"""Squared norms of per-example sums of outer products, w_i = left_i^T right_i, and their sum.

The weight gradient of a linear layer is such a sum over the positions of a sequence: left is the
upstream gradient, right the input. Three methods give equal results, apart from rounding: one
example at a time, all at once, or without forming w_i (ghost norms, 2110.05679). For a single
position |w_i| = |left_i| |right_i| (1510.01799). Products keep the precision of their inputs; sums
and squares use at least float32.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Method = Literal["loop", "batched", "ghost"]

BATCHED_BYTES = 256 * 2**20
"""Largest memory of all w_i at once on an accelerator."""
SMALL_ENTRIES = 2**16
"""With fewer entries of w_i than this, a processor spends more time on calls than on products."""


@dataclass(frozen=True)
class OuterProducts:
    """Requested results about the w_i."""

    norms: Tensor
    """(B,) squared norms."""
    total: Tensor
    """(B,) squared norms."""
    rows: Tensor | None
    """(B, S, Q): the requested rows of each w_i."""


def choose_method(
    n_examples: int, n_positions: int, n_rows: int, n_columns: int, on_accelerator: bool
) -> Method:
    """Return the cheapest way by operations and memory: equal counts at T^2 = (2KL - 1) / (2K + 2L
    - 1).

    Source: 2411.00999, table 1, counted again for w_i that also give the gradient itself.
    """
    entries = n_rows * n_columns
    crossover = (2 * entries - 1) / (2 * n_rows + 2 * n_columns - 1)
    if n_positions == 1 or n_positions**2 <= crossover:
        return "ghost"
    if on_accelerator:
        return "batched" if 4 * n_examples * entries <= BATCHED_BYTES else "loop"
    return "batched" if entries < SMALL_ENTRIES else "loop"


def outer_products(
    left: Tensor,
    right: Tensor,
    method: Method | None = None,
    mask: Tensor | None = None,
    rows: Tensor | None = None,
) -> OuterProducts:
    """Return norms and sum of w_i = left_i^T right_i, for ``left`` (B, T, P) and ``right`` (B, T,
    Q).

    ``mask`` (P, Q) leaves entries out of the norms, but not out of the sum. ``rows`` (B, S) selects
    rows of each w_i. Ghost norms have no entries, so with a mask or rows another method is used.
    """
    n_examples, n_positions, n_rows = left.shape
    n_columns, on_accelerator = right.shape[-1], left.device.type != "cpu"
    if method is None:
        method = choose_method(n_examples, n_positions, n_rows, n_columns, on_accelerator)
    if method == "ghost" and mask is None and rows is None:
        return _ghost(left, right)
    if method == "loop" or (method == "ghost" and n_rows * n_columns >= SMALL_ENTRIES):
        return _loop(left, right, mask, rows)
    return _batched(left, right, mask, rows)


def widened(tensor: Tensor) -> Tensor:
    """Return the tensor in float32, or in float64 if it has this type already."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _ghost(left: Tensor, right: Tensor) -> OuterProducts:
    total = widened(left.flatten(0, 1).t() @ right.flatten(0, 1))
    left, right = widened(left), widened(right)
    if left.shape[1] == 1:
        norms = left.square().sum((1, 2)) * right.square().sum((1, 2))
    else:
        norms = ((left @ left.mT) * (right @ right.mT)).sum((1, 2))
    return OuterProducts(norms, total, None)


def _batched(
    left: Tensor, right: Tensor, mask: Tensor | None, rows: Tensor | None
) -> OuterProducts:
    products = widened(left.mT @ right)
    total = products.sum(0)
    picked = None
    if rows is not None:
        examples = torch.arange(len(products), device=rows.device)[:, None]
        picked = products[examples, rows]
    if mask is not None:
        products = products * mask
    return OuterProducts(products.square().sum((1, 2)), total, picked)


def _loop(left: Tensor, right: Tensor, mask: Tensor | None, rows: Tensor | None) -> OuterProducts:
    n_examples, _, n_rows = left.shape
    n_columns = right.shape[-1]
    total = widened(left.new_zeros(n_rows, n_columns))
    norms = total.new_zeros(n_examples)
    picked = None if rows is None else total.new_empty(*rows.shape, n_columns)
    product = left.new_empty(n_rows, n_columns)
    for example in range(n_examples):
        torch.mm(left[example].t(), right[example], out=product)
        wide = widened(product)
        total.add_(wide)
        if rows is not None and picked is not None:
            torch.index_select(wide, 0, rows[example], out=picked[example])
        flat = (wide if mask is None else wide * mask).view(-1)
        torch.dot(flat, flat, out=norms[example])
    return OuterProducts(norms, total, picked)
