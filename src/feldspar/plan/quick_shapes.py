"""Quick shape rules for modules of convolutions that are built and run on the meta device.

For many operations torch finds the shape of a result by a decomposition in Python. That takes up to
a millisecond a call, thousands of times a step, and the first call imports torch's compiler, which
takes more than a second. The rules here answer for the operations that convolutional networks use.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


class QuickShapes(TorchDispatchMode):
    """Answer operations on the meta device by the shapes of their results; random fills do nothing.

    Tensors that are read together have one type. Operations without a rule, and tensors outside
    the meta device, are computed as always.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: to skip torch's compiler, torch would import it."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return what ``func`` returns."""
        rule, kwargs = RULES.get(func.overloadpacket), kwargs or {}
        if rule is not None and kwargs.get("dtype") is None and _on_meta(args[0]):
            return rule(*args)
        return func(*args, **kwargs)


def _on_meta(read: Any) -> bool:
    """Tell whether a tensor, or the first one of a list, is on the meta device."""
    return (read if isinstance(read, Tensor) else read[0]).is_meta


def _first(tensor: Tensor, *others: Any) -> Tensor:
    return tensor


def _like_first(tensor: Tensor, *others: Any) -> Tensor:
    return tensor.new_empty(tensor.shape)


def _broadcast(*values: Any) -> Tensor:
    tensors = [value for value in values if isinstance(value, Tensor)]
    return tensors[0].new_empty(np.broadcast_shapes(*(tensor.shape for tensor in tensors)))


def _reduced(x: Tensor, dimensions: list[int] | None = None, keep: bool = False) -> Tensor:
    reduced = {dimension % x.ndim for dimension in dimensions or range(x.ndim)}
    sizes = [1 if place in reduced else size for place, size in enumerate(x.shape)]
    kept = [size for place, size in enumerate(sizes) if keep or place not in reduced]
    return x.new_empty(kept)


def _joined(tensors: list[Tensor], dimension: int = 0) -> Tensor:
    sizes = list(tensors[0].shape)
    sizes[dimension] = sum(tensor.shape[dimension] for tensor in tensors)
    return tensors[0].new_empty(sizes)


def _product(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty((len(a), b.shape[1]))


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
    aten.empty_like: _like_first,
    **dict.fromkeys((aten.add, aten.mul, aten.div), _broadcast),
    **dict.fromkeys((aten.mean, aten.sum), _reduced),
    aten.cat: _joined,
    aten.mm: _product,
    aten.addmm: _sum_with_product,
    aten.convolution: _convolution,
    aten.convolution_backward: _convolution_backward,
    aten.native_batch_norm: _batch_norm,
    aten.native_batch_norm_backward: _batch_norm_backward,
    aten.upsample_bilinear2d: _resized,
}
"""The shape of the result for each operation that convolutional networks use."""
