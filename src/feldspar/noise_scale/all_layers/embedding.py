"""Measure embeddings: gradient rows of an id that an example repeats are added before squaring."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feldspar.core.errors import UserError
from feldspar.noise_scale.products import widened
from feldspar.noise_scale.rule import Rule
from feldspar.noise_scale.uses import in_backward


class EmbeddingRule(Rule):
    """Measure ``nn.Embedding`` of ids (B, ...), with one row for each example.

    Ids that are the same for all examples are repeated for each example: the output gets a leading
    dimension of examples, so adding it to a batch gives the same sum. Ids (1, ...) are shared
    because of their shape. Any other shared ids must be declared: see ``shared``.
    """

    shared: bool | None = None
    """Declaration of the caller: the ids are the same for all examples (True), or have one row for
    each example (False). None: not declared, so ids that could be either are refused."""
    _has_rows_of_examples = False

    def forward(self, module: nn.Module, ids: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]
        """Return the vectors (B, ..., d)."""
        ids = self._for_each_example(ids)
        self.recorder.observe(self.name, len(ids), ids.shape[1] if ids.dim() > 1 else None)
        weight = self.use(module, "weight", "embedding")
        uses = self.uses["weight"]
        if not in_backward():
            uses.ids = ids.reshape(len(ids), -1)
        return cast(Tensor, _Embedding.apply(ids, weight, module.padding_idx, self))

    def _for_each_example(self, ids: Tensor) -> Tensor:
        """Repeat shared ids for each example. Raises UserError for ids that could be either."""
        n_examples = self.recorder.n_examples
        if self.shared:
            if n_examples is None:
                raise UserError(
                    f"{self.name} is shared by all examples, but no layer has seen the batch yet",
                    do="give the number of examples: microbatch(n_examples=...)",
                )
            leading = ids if ids.dim() > 1 and len(ids) == 1 else ids[None]
            return leading.expand(n_examples, *leading.shape[1:])
        if ids.dim() == 0:
            raise UserError(f"{self.name} got a single id without a batch dimension")
        if ids.dim() > 1 and len(ids) == 1 and n_examples is not None:
            return ids.expand(n_examples, *ids.shape[1:])
        if self.shared is None:
            self._refuse_ambiguous(ids)
        return ids

    def _refuse_ambiguous(self, ids: Tensor) -> None:
        """Raise UserError for undeclared ids whose shape does not show the meaning of their
        rows."""
        square = ids.dim() > 1 and len(ids) == ids.shape[1] > 1
        if ids.dim() > 1 and not square:
            # If the rows were not examples, their number would differ from that in other layers.
            self._has_rows_of_examples = True
        if ids.dim() == 1 or (square and not self._has_rows_of_examples):
            raise UserError(
                f"{self.name} got ids of shape {tuple(ids.shape)}: they may have one row "
                "for each example, or be the same for all examples, as positions are",
                do=f"declare it: instrument(..., shared=[{self.name!r}]) if they are the "
                "same for all examples, shared=[] if no embedding is shared",
            )

    def weight_gradient(self, ids: Tensor, grad: Tensor, weight: Tensor, padding: int) -> Tensor:
        """Return the gradient (V, d) of the table from ``ids`` (B, S) and ``grad`` (B, S, d)."""
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
        self.report_gradient("weight", total)
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
