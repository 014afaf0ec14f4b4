"""Compute the inner activations of a module again in the backward pass (2206.14098, neck).

Unlike ``torch.utils.checkpoint``, running statistics are updated once and hooks on parameters see
one gradient.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from feldspar.reversible.replay import (
    Replay,
    gradients_of,
    leaf_of,
    refuse_double_backward,
    trainable_parameters,
)


def recomputed(module: nn.Module, first: Tensor, *others: Tensor | None) -> tuple[Tensor, ...]:
    """Return ``module(first, *others)`` as a tuple of tensors; only the inputs are kept."""
    inputs = (first, *others)
    if not torch.is_grad_enabled():
        return _as_tuple(module(*inputs))
    replay = Replay(module, first.device)
    parameters = trainable_parameters(module)
    ids = [id(parameter) for parameter in parameters]
    return cast(tuple[Tensor, ...], _Recomputed.apply(replay, ids, *inputs, *parameters))


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, replay: Replay, ids: list[int], *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        inputs = tensors[: len(tensors) - len(ids)]
        ctx.replay, ctx.ids = replay, ids
        ctx.save_for_backward(*inputs)
        return _as_tuple(replay.first(*inputs))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        refuse_double_backward()
        inputs = [leaf_of(tensor) for tensor in ctx.saved_tensors]
        outputs, leaves = ctx.replay.again(*inputs)
        sources = [*inputs, *(leaves[key] for key in ctx.ids)]
        gradients = gradients_of(_as_tuple(outputs), grads, sources)
        return None, None, *gradients


def _as_tuple(output: Any) -> tuple[Tensor, ...]:
    return (output,) if isinstance(output, Tensor) else tuple(output)
