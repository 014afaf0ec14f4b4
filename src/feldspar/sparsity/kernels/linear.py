"""A linear map by the kept entries of its weight only, with its gradients."""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from feldspar.sparsity.kernels.compiled import Compiled
from feldspar.sparsity.kernels.layout import Layout


class SparseLinear:
    """Computes ``x @ weight.T + bias`` for a weight whose entries outside a mask are zero.

    The weight stays a dense tensor and so does its gradient, which is zero outside the mask. Values
    are those of the dense product up to rounding. Inputs of another type than float32 are
    multiplied dense.
    """

    passes = 3

    def __init__(self, mask: Tensor, kernels: Compiled) -> None:
        self.kernels = kernels
        self.layout = Layout.of(mask, kernels.registers.tile)
        self.transposed: tuple[Layout, Tensor] | None = None
        if self.layout.rows == 1:
            self.transposed = self.layout.transposed(mask, kernels.registers.tile)

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        if torch.compiler.is_compiling() or not x.dtype == weight.dtype == torch.float32:
            return F.linear(x, weight, bias)
        return cast(Tensor, _Product.apply(x, weight, bias, self))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, linear: SparseLinear
    ) -> Tensor:
        layout = linear.layout
        values = weight.reshape(-1).index_select(0, layout.positions)
        rows = x.reshape(-1, layout.shape[1])
        name = f"accumulate_{layout.rows}"
        out, packed = _through_tiles(linear.kernels, name, rows, layout, values, bias, 0)
        ctx.save_for_backward(packed, values)
        ctx.linear = linear
        return out.view(*x.shape[:-1], layout.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyrefly: ignore
        packed, values = ctx.saved_tensors
        linear: SparseLinear = ctx.linear
        layout, kernels = linear.layout, linear.kernels
        height, width = layout.shape
        rows = grads[0].reshape(-1, height)
        if linear.transposed is None:
            name = f"spread_{layout.rows}"
            grad_x, held = _through_tiles(kernels, name, rows, layout, values, None, 1)
        else:
            other, order = linear.transposed
            name, own = f"accumulate_{other.rows}", values.index_select(0, order)
            grad_x, held = _through_tiles(kernels, name, rows, other, own, None, 0)
        grad_weight = grad_bias = None
        if ctx.needs_input_grad[1]:
            kept = torch.zeros_like(values)
            tiles = -(-len(rows) // kernels.registers.tile)
            sizes = (packed.data_ptr(), held.data_ptr(), tiles, width, height)
            kernels.run(f"correlate_{layout.rows}", [*sizes, *_matrix(layout, kept)])
            grad_weight = values.new_zeros(height * width)
            grad_weight = grad_weight.index_copy_(0, layout.positions, kept).view(height, width)
        if ctx.needs_input_grad[2]:
            grad_bias = rows.sum(0)
        return grad_x.view(*grads[0].shape[:-1], width), grad_weight, grad_bias, None


def _through_tiles(
    kernels: Compiled,
    name: str,
    source: Tensor,
    layout: Layout,
    values: Tensor,
    start: Tensor | None,
    target_axis: int,
) -> tuple[Tensor, Tensor]:
    """Multiply (tokens, features) by a matrix; return the result and the packed source.

    ``start`` is added to the result. ``target_axis`` is the axis of the matrix that the result's
    features are.
    """
    tile, source = kernels.registers.tile, source.contiguous()
    (tokens, width), n_target = source.shape, layout.shape[target_axis]
    tiles, whole = -(-tokens // tile), tokens // tile
    target = source.new_empty(tokens, n_target)
    packed = source.new_empty(tiles * tile * width)
    room = source.new_empty(torch.get_num_threads() * n_target * tile)
    rest = tokens - whole * tile
    last_source = last_target = source
    if rest:
        last_source, last_target = source.new_zeros(tile, width), source.new_empty(tile, n_target)
        last_source[:rest] = source[whole * tile :]
    if start is not None:
        start = start.contiguous()
    places = (source, last_source, target, last_target)
    numbers = (tiles, whole, width, n_target, 0 if start is None else start.data_ptr())
    rooms = (packed.data_ptr(), room.data_ptr())
    given = [*(tensor.data_ptr() for tensor in places), *numbers, *rooms]
    kernels.run(name, [*given, *_matrix(layout, values)])
    if rest:
        target[whole * tile :] = last_target[:rest]
    return target, packed


def _matrix(layout: Layout, values: Tensor) -> tuple[int, int, int, int, int]:
    """Return a matrix as arguments of a product."""
    addresses = (tensor.data_ptr() for tensor in (layout.begins, layout.columns, values))
    begins, columns, held = addresses
    return layout.panels, layout.groups, begins, columns, held
