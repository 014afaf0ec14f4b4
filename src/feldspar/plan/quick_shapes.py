"""Quick shape rules for networks that are built and run on the meta device.

For many operations torch finds the shape of a result by a decomposition in Python. That takes up to
a millisecond a call, thousands of times a step, and the first call imports torch's compiler, which
takes more than a second. The rules here answer for the operations that our networks use.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


class QuickShapes(TorchDispatchMode):
    """Computes the shapes of results on the meta device. Random fills do nothing.

    Operations without a rule, and tensors outside the meta device, are computed as always.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False. To skip torch's compiler, torch would have to import it."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return what ``func`` returns."""
        operation, kwargs = func.overloadpacket, kwargs or {}
        if operation is aten.arange and torch.device(kwargs["device"]).type == "meta":
            dtype = kwargs.get("dtype") or torch.int64
            return torch.empty(len(range(*args)), dtype=dtype, device="meta")
        rule = RULES.get(operation)
        if rule is None or not _on_meta(args):
            return func(*args, **kwargs)
        if "out" in kwargs:
            return kwargs["out"]
        result, dtype = rule(*args), kwargs.get("dtype")
        return result if dtype is None else result.to(dtype)


def _on_meta(args: Any) -> bool:
    """Tell whether the first tensor, or the first one of a list, is on the meta device."""
    for value in args:
        if isinstance(value, Tensor):
            return value.is_meta
        if isinstance(value, list) and value and isinstance(value[0], Tensor):
            return value[0].is_meta
    return False


def _first(tensor: Tensor, *others: Any) -> Tensor:
    return tensor


def _like_first(tensor: Tensor, *others: Any) -> Tensor:
    """Return a tensor of the same shape whose dimensions lie in the same order.

    The order decides whether a later reshaping copies.
    """
    strides, length = [0] * tensor.ndim, 1
    for place in sorted(range(tensor.ndim - 1, -1, -1), key=tensor.stride):
        strides[place] = length
        length *= tensor.shape[place]
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device)


def _broadcast(*values: Any) -> Tensor:
    tensors = [value for value in values if isinstance(value, Tensor)]
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    shape = np.broadcast_shapes(*(tensor.shape for tensor in tensors))
    return tensors[0].new_empty(shape, dtype=dtype)


def _compared(*values: Any) -> Tensor:
    return _broadcast(*values).to(torch.bool)


def _chosen(condition: Tensor, *values: Any) -> Tensor:
    return _broadcast(*values).expand(_broadcast(condition, *values).shape).contiguous()


def _reduced(x: Tensor, dimensions: list[int] | None = None, keep: bool = False) -> Tensor:
    reduced = {dimension % x.ndim for dimension in dimensions or range(x.ndim)}
    sizes = [1 if place in reduced else size for place, size in enumerate(x.shape)]
    kept = [size for place, size in enumerate(sizes) if keep or place not in reduced]
    return x.new_empty(kept)


def _joined(tensors: list[Tensor], dimension: int = 0) -> Tensor:
    sizes = list(tensors[0].shape)
    sizes[dimension] = sum(tensor.shape[dimension] for tensor in tensors)
    return tensors[0].new_empty(sizes)


def _stacked(tensors: list[Tensor], dimension: int = 0) -> Tensor:
    sizes = list(tensors[0].shape)
    sizes.insert(dimension % (len(sizes) + 1), len(tensors))
    return tensors[0].new_empty(sizes)


def _repeated(x: Tensor, times: list[int]) -> Tensor:
    return x.new_empty([size * n for size, n in zip(x.shape, times, strict=True)])


def _padded(x: Tensor, margins: list[int], *others: Any) -> Tensor:
    sizes = list(x.shape)
    for place, margin in enumerate(margins):
        sizes[-1 - place // 2] += margin
    return x.new_empty(sizes)


def _embedded(table: Tensor, indices: Tensor, *others: Any) -> Tensor:
    return table.new_empty((*indices.shape, table.shape[1]))


def _layer_norm(x: Tensor, normalised: list[int], *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    n_dimensions = len(normalised)
    sizes = (*x.shape[:-n_dimensions], *[1] * n_dimensions)
    return x.new_empty(x.shape), x.new_empty(sizes), x.new_empty(sizes)


def _vector_norm(x: Tensor, order: float, *others: Any) -> Tensor:
    return _reduced(x, *others)


def _largest_so_far(x: Tensor, dimension: int) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape, dtype=torch.int64)


def _dropout(x: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape, dtype=torch.bool)


def _attention(query: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    n_sequences, n_heads, length, width = query.shape
    out = query.new_empty((n_sequences, length, n_heads, width)).transpose(1, 2)
    return out, query.new_empty(query.shape[:3], dtype=torch.float32)


def _product(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty((*a.shape[:-1], b.shape[-1]))


def _sum_with_product(summand: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return _product(a, b)


def _convolution(
    x: Tensor, weight: Tensor, bias: Any, stride: list[int], padding: list[int], *others: Any
) -> Tensor:
    sizes = zip(x.shape[2:], weight.shape[2:], stride, padding, strict=True)
    areas = [(size + 2 * margin - kernel) // step + 1 for size, kernel, step, margin in sizes]
    return x.new_empty((len(x), len(weight), *areas))


def _convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, *others: Any
) -> tuple[Tensor | None, ...]:
    made = (x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(len(weight)))
    return tuple(
        tensor if wanted else None for tensor, wanted in zip(made, others[-1], strict=True)
    )


def _batch_norm(
    x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, *others: Any
) -> tuple[Tensor, Tensor, Tensor]:
    size = x.shape[1] if training else 0
    return x.new_empty(x.shape), x.new_empty(size), x.new_empty(size)


def _batch_norm_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, *others: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(weight.shape)


def _resized(x: Tensor, size: list[int], *others: Any) -> Tensor:
    return x.new_empty((*x.shape[:2], *size))


RULES: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((aten.uniform_, aten.normal_, aten.bernoulli_, aten.add_, aten.div_), _first),
    **dict.fromkeys((aten.hardswish, aten.hardswish_backward), _like_first),
    **dict.fromkeys((aten.hardsigmoid, aten.hardsigmoid_backward), _like_first),
    **dict.fromkeys((aten._log_softmax, aten._log_softmax_backward_data, aten.neg), _like_first),
    **dict.fromkeys((aten.mul_, aten.addcmul_, aten.pow_, aten.rsqrt_, aten.copy_), _first),
    **dict.fromkeys((aten.triu_, aten.clamp_, aten.baddbmm, aten.softmax), _first),
    **dict.fromkeys((aten.gelu, aten.silu, aten.cos, aten.sin, aten.remainder), _like_first),
    **dict.fromkeys((aten._safe_softmax, aten.masked_fill), _like_first),
    **dict.fromkeys((aten.silu_backward, aten.sigmoid, aten.sigmoid_backward), _like_first),
    **dict.fromkeys((aten.empty_like, aten.ones_like), _like_first),
    **dict.fromkeys((aten.add, aten.sub, aten.mul, aten.div, aten.pow), _broadcast),
    aten.bitwise_and: _broadcast,
    **dict.fromkeys((aten.eq, aten.ne, aten.ge), _compared),
    aten.where: _chosen,
    **dict.fromkeys((aten.mean, aten.sum), _reduced),
    aten.cat: _joined,
    aten.stack: _stacked,
    aten.repeat: _repeated,
    aten.constant_pad_nd: _padded,
    aten.embedding: _embedded,
    aten.native_layer_norm: _layer_norm,
    aten.linalg_vector_norm: _vector_norm,
    aten.cummax: _largest_so_far,
    aten.native_dropout: _dropout,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    **dict.fromkeys((aten.mm, aten.bmm), _product),
    aten.addmm: _sum_with_product,
    aten.convolution: _convolution,
    aten.convolution_backward: _convolution_backward,
    aten.native_batch_norm: _batch_norm,
    aten.native_batch_norm_backward: _batch_norm_backward,
    aten.upsample_bilinear2d: _resized,
}
"""A shape rule for each operation that our networks use."""
