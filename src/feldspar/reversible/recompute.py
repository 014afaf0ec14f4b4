"""Compute the inner activations of a module again in the backward pass (2206.14098, neck).

Unlike ``torch.utils.checkpoint``, running statistics are updated once and hooks on parameters see
one gradient.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from feldspar.reversible.replay import Replay, refuse_double_backward, trainable_parameters


def recomputed(module: nn.Module, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Return ``module(*inputs)`` as a tuple of tensors; only the inputs are kept."""
    if not torch.is_grad_enabled():
        return _as_tuple(module(*inputs))
    replay = Replay(module, inputs[0].device)
    parameters = trainable_parameters(module)
    ids = [id(parameter) for parameter in parameters]
    return cast(tuple[Tensor, ...], _Recomputed.apply(replay, ids, *inputs, *parameters))


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, replay: Replay, ids: list[int], *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs = tensors[: len(tensors) - len(ids)]
        ctx.replay, ctx.ids = replay, ids
        ctx.save_for_backward(*inputs)
        return _as_tuple(replay.first(*inputs))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        refuse_double_backward()
        inputs = [
            tensor.detach().requires_grad_(tensor.requires_grad) for tensor in ctx.saved_tensors
        ]
        outputs, leaves = ctx.replay.again(*inputs)
        reached = [
            pair for pair in zip(_as_tuple(outputs), grads, strict=True) if pair[0].requires_grad
        ]
        sources = [*inputs, *(leaves[key] for key in ctx.ids)]
        wanted = [tensor for tensor in sources if tensor.requires_grad]
        found = iter(
            torch.autograd.grad(
                [output for output, _ in reached],
                wanted,
                [gradient for _, gradient in reached],
                allow_unused=True,
            )
        )
        gradients = [next(found) if tensor.requires_grad else None for tensor in sources]
        return None, None, *gradients


def _as_tuple(output: Any) -> tuple[Tensor, ...]:
    return (output,) if isinstance(output, Tensor) else tuple(output)
