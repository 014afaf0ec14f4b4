"""Measure linear layers: the norms of each example's gradient of weight and bias."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feldspar.core.errors import UserError
from feldspar.noise_scale.products import Method, outer_products, widened
from feldspar.noise_scale.rule import Rule, autocast_dtype, without_autocast


class LinearRule(Rule):
    """``x @ weight.T + bias`` of ``nn.Linear``, or ``x @ weight + bias`` (GPT-2's Conv1D).

    The input is (B, ..., in). ``method`` None: the cheapest method for each shape of input.
    """

    method: Method | None = None
    transposed = False

    def forward(self, module: nn.Module, x: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]
        """Return the layer's output (B, ..., out)."""
        if x.dim() < 2:
            raise UserError(f"{self.name} got an input without a batch dimension")
        self.recorder.observe(self.name, len(x), x.shape[1] if x.dim() > 2 else None)
        # The rows of a transposed weight differ from those of an embedding that shares it.
        kind = "example" if self.transposed else "matrix"
        weight = self.use(module, "weight", kind)
        bias = self.use(module, "bias", "vector")
        return cast(Tensor, _Linear.apply(x, weight, bias, self))

    def weight_gradient(self, x: Tensor, grad: Tensor) -> Tensor:
        """Return the gradient of the weight from ``x`` (B, T, in) and ``grad`` (B, T, out)."""
        left, right = (x, grad) if self.transposed else (grad, x)
        uses = self.uses.get("weight")
        if uses is None:  # frozen when the model was instrumented
            return widened(left.flatten(0, 1).t() @ right.flatten(0, 1))
        if uses.is_shared:
            uses.defer(lambda example: widened(left[example].t() @ right[example]))
            total = widened(left.flatten(0, 1).t() @ right.flatten(0, 1))
        else:
            products = outer_products(left, right, self.method, uses.mask, uses.ids)
            total = products.total
            uses.add(products.norms)
            if products.rows is not None:
                uses.add_tied(products.rows)
        self.report_gradient("weight", total)
        return total

    def bias_gradient(self, grad: Tensor) -> Tensor:
        """Return the gradient of the bias from ``grad`` (B, T, out)."""
        vectors = widened(grad).sum(1)
        total = vectors.sum(0)
        if "bias" in self.uses:
            self.uses["bias"].add_vectors(vectors)
            self.report_gradient("bias", total)
        return total


class TransposedLinearRule(LinearRule):
    """The rule for a weight of shape (in, out)."""

    transposed = True


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, rule: LinearRule
    ) -> Tensor:
        dtype = autocast_dtype(x)
        ctx.rule, ctx.dtype, ctx.input_dtype = rule, dtype, x.dtype
        x = x if dtype is None else x.to(dtype)
        ctx.save_for_backward(x, weight)
        if rule.transposed:
            weight = weight.t()
        if dtype is not None:
            weight = weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        with without_autocast(x):
            return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rule: LinearRule = ctx.rule
        grad_x = grad_weight = grad_bias = None
        with without_autocast(x):
            if ctx.needs_input_grad[0]:
                wide = weight.t() if rule.transposed else weight
                grad_x = (grads[0] @ wide.to(grads[0].dtype)).to(ctx.input_dtype)
            grad = grads[0].reshape(len(x), -1, grads[0].shape[-1])
            if ctx.needs_input_grad[1]:
                grad_weight = rule.weight_gradient(x.reshape(len(x), -1, x.shape[-1]), grad)
            if ctx.needs_input_grad[2]:
                grad_bias = rule.bias_gradient(grad)
        return grad_x, grad_weight, grad_bias, None
