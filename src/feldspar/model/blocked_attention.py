"""Causal attention for training on a processor, which keeps the probabilities.

A fused kernel computes the probabilities again in its backward pass to save memory. At a context of
a few hundred tokens they are small, and keeping them saves a fifth of the time. Blocks of rows skip
the keys that none of their rows sees. Groups of heads keep a block's scores in the cache.
"""

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from feldspar.model.stand_in import kernel_device
from feldspar.model.visible_keys import Chunk, VisibleKeys

KEPT_BLOCK_ROWS = 64
"""Query rows of a block of probabilities."""
KEPT_BYTES = 64 * 2**20
"""Most probabilities of a layer that are kept. Above this the fused kernel is better."""
BLOCK_BYTES = 2**20
"""Scores of a block that fit in a core's own cache."""


def suits_blocks(query: Tensor, key: Tensor) -> bool:
    """Tell whether this path is faster than the fused kernel.

    It is for float32 on a processor with a gradient and few probabilities.

    It needs as many heads and rows of queries as of keys.
    """
    if kernel_device(query) != "cpu" or query.dtype != torch.float32 or query.shape != key.shape:
        return False
    if not query.requires_grad or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    n_sequences, n_heads, length, _ = query.shape
    return n_sequences * n_heads * length**2 * query.element_size() // 2 <= KEPT_BYTES


def blocked_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    slopes: Tensor | None = None,
    visible: VisibleKeys = VisibleKeys(),
) -> Tensor:
    """Compute causal attention over (b, h, t, d); ``slopes`` turn ALiBi on, as for ``attend``.

    ``visible`` must be the same for all sequences.
    """
    assert visible.document_ids is None
    return cast(Tensor, _BlockedAttention.apply(query, key, value, scale, slopes, visible))


class _BlockedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        slopes: Tensor | None,
        visible: VisibleKeys,
    ) -> Tensor:
        shape, length = query.shape, query.shape[2]
        query, key, value = (part.reshape(-1, length, shape[3]) for part in (query, key, value))
        group = _heads_of_a_group(shape[1], length, query.element_size())
        add_alibi = None if slopes is None else _alibi(slopes, shape, group)
        out = torch.empty_like(query)
        kept = []
        for heads, chunk in _blocks(len(query), group, length, visible):
            rows, keys = query[heads, chunk.rows], key[heads, chunk.keys]
            scores = query.new_empty(len(rows), rows.shape[1], keys.shape[1])
            torch.baddbmm(scores, rows, keys.transpose(1, 2), beta=0, alpha=scale, out=scores)
            visible.hide(scores, chunk)
            if add_alibi is not None:
                add_alibi(scores, heads, chunk.rows)
            torch.softmax(scores, dim=-1, out=scores)
            out[heads, chunk.rows] = torch.bmm(scores, value[heads, chunk.keys])
            kept.append(scores)
        ctx.save_for_backward(query, key, value, out, *kept)
        ctx.scale, ctx.group, ctx.visible = scale, group, visible
        return out.view(shape)

    @staticmethod
    @once_differentiable
    def backward(  # pyrefly: ignore  # the decorator forgets the names of arguments
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        """Compute the gradients. With P the probabilities: dS = P (dO V' - rowsum(dO O))."""
        query, key, value, out, *kept = ctx.saved_tensors
        shape, length = grads[0].shape, grads[0].shape[2]
        grad = grads[0].reshape(out.shape)
        shared = (grad * out).sum(dim=-1, keepdim=True)
        grad_query = torch.empty_like(query)
        grad_key, grad_value = torch.zeros_like(key), torch.zeros_like(value)
        blocks = _blocks(len(query), ctx.group, length, ctx.visible)
        for probabilities, (heads, (rows, keys)) in zip(kept, blocks, strict=True):
            incoming = grad[heads, rows]
            grad_value[heads, keys] += torch.bmm(probabilities.transpose(1, 2), incoming)
            scores = torch.bmm(incoming, value[heads, keys].transpose(1, 2))
            scores.sub_(shared[heads, rows]).mul_(probabilities)
            scores.mul_(ctx.scale)
            grad_query[heads, rows] = torch.bmm(scores, key[heads, keys])
            grad_key[heads, keys] += torch.bmm(scores.transpose(1, 2), query[heads, rows])
        grads_of_heads = grad_query.view(shape), grad_key.view(shape), grad_value.view(shape)
        return (*grads_of_heads, None, None, None)


def _heads_of_a_group(n_heads: int, length: int, entry_bytes: int) -> int:
    """Return how many heads are computed together: those of whole sequences, so that
    slopes repeat.
    """
    fitting = BLOCK_BYTES // (KEPT_BLOCK_ROWS * length * entry_bytes)
    return n_heads * max(fitting // n_heads, 1)


def _blocks(
    total: int, group: int, length: int, visible: VisibleKeys
) -> Iterator[tuple[slice, Chunk]]:
    """Yield groups of heads, each with chunks of rows."""
    for head in range(0, total, group):
        for chunk in visible.chunks(length, length, KEPT_BLOCK_ROWS):
            yield slice(head, min(head + group, total)), chunk


def _alibi(
    slopes: Tensor, shape: torch.Size, group: int
) -> Callable[[Tensor, slice, slice], object]:
    """Return a function that adds ALiBi to scores, in place.

    It adds slope x key position, counted back from a block's last; constants of a row cancel.
    """
    n_sequences, n_heads, length, _ = shape
    places = torch.arange(1 - length, 1, dtype=slopes.dtype, device=slopes.device)
    if slopes.dim() > 1:
        each = slopes.expand(n_sequences, n_heads, length).flatten(0, 1)
        return lambda scores, heads, rows: scores.addcmul_(
            each[heads, rows, None], places[length - scores.shape[2] :]
        )
    behind = (slopes[:, None, None] * places).repeat(group // n_heads, 1, 1)
    return lambda scores, heads, rows: scores.add_(
        behind[: len(scores), :, length - scores.shape[2] :]
    )
