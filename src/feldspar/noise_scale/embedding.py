"""Embeddings: gradient rows of an id that an example repeats add up before they are squared."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feldspar.noise_scale.products import widened
from feldspar.noise_scale.rule import Rule
from feldspar.noise_scale.uses import in_backward


class EmbeddingRule(Rule):
    """``nn.Embedding`` of ids (B, ...).

    Ids that stand for all examples, (1, T) or (T,) as learned positions are read, are repeated for
    each: what adds the vectors to a batch gets the same sum.
    """

    def forward(self, module: nn.Module, ids: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]
        """The vectors (B, ..., d)."""
        ids = self._for_each_example(ids)
        self.recorder.observe(self.name, len(ids), ids.shape[1] if ids.dim() > 1 else None)
        weight = self.use(module, "weight", "embedding")
        uses = self.uses["weight"]
        if not in_backward():
            uses.ids = ids.reshape(len(ids), -1)
        return cast(Tensor, _Embedding.apply(ids, weight, module.padding_idx, self))

    def _for_each_example(self, ids: Tensor) -> Tensor:
        n_examples = self.recorder.n_examples
        if n_examples is None or ids.dim() == 0:
            return ids
        if ids.dim() > 1:
            return ids.expand(n_examples, *ids.shape[1:]) if len(ids) == 1 else ids
        # One id an example, unless they just count: then they are positions.
        if len(ids) == n_examples and not torch.equal(ids, torch.arange(len(ids)).to(ids)):
            return ids
        return ids.expand(n_examples, -1)

    def weight_gradient(self, ids: Tensor, grad: Tensor, weight: Tensor, padding: int) -> Tensor:
        """The gradient (V, d) of the table from ``ids`` (B, S) and ``grad`` (B, S, d)."""
        uses = self.uses["weight"]
        grad = widened(grad)
        if padding >= 0:
            grad = grad.masked_fill((ids == padding)[..., None], 0)
        total = grad.new_zeros(weight.shape)
        if uses.is_shared:
            total.index_add_(0, ids.flatten(), grad.flatten(0, 1))
            uses.defer(
                lambda example: torch.zeros_like(total).index_add_(0, ids[example], grad[example])
            )
        else:
            examples = torch.arange(len(ids), device=ids.device)[:, None]
            keys, places = (examples * len(weight) + ids).unique(return_inverse=True)
            merged = grad.new_zeros(len(keys), grad.shape[-1])
            merged.index_add_(0, places.flatten(), grad.flatten(0, 1))
            rows = keys % len(weight)
            total.index_add_(0, rows, merged)
            if uses.mask is not None:
                merged = merged * uses.mask[rows]
            norms = grad.new_zeros(len(ids))
            norms.index_add_(0, keys // len(weight), merged.square().sum(1))
            uses.add(norms)
            uses.add_tied(grad)
        self.tell("weight", total)
        return total


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, ids: Tensor, weight: Tensor, padding: int | None, rule: EmbeddingRule
    ) -> Tensor:
        ctx.rule, ctx.padding = rule, -1 if padding is None else padding
        ctx.save_for_backward(ids, weight)
        return F.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ids, weight = ctx.saved_tensors
        if not ctx.needs_input_grad[1]:
            return None, None, None, None
        grad = grads[0].reshape(len(ids), -1, weight.shape[-1])
        total = ctx.rule.weight_gradient(ids.reshape(len(ids), -1), grad, weight, ctx.padding)
        return None, total, None, None
