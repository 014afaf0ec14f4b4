"""Measure LayerNorm and RMSNorm at no cost.

The gradients of each example's gain and bias are partial sums that the backward pass computes
anyway. In a compiled graph only tensors can leave the backward pass, so the squared norms are
returned as the gradient of an extra input that the forward pass ignores.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from feldspar.core.errors import UserError
from feldspar.noise_scale.norms.norm_backward import norm_backward
from feldspar.noise_scale.products import widened
from feldspar.noise_scale.rule import Rule, without_autocast
from feldspar.noise_scale.uses import in_backward


class NormRule(Rule):
    """A norm over the last dimensions of (B, ..., *shape), with a gain and an optional bias."""

    compiles = True
    outlet: Tensor | None = None
    """(3,): its gradient becomes the summed squared norms of gain and bias, and the number of
    examples."""
    _n_uncompiled = 0

    def prepare(self, module: nn.Module) -> None:
        """Make the extra input of a compiled backward pass; its gradient adds up over passes."""
        weight = next(module.parameters())
        if self.outlet is None or self.outlet.device != weight.device:
            dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
            self.outlet = torch.zeros(3, dtype=dtype, device=weight.device, requires_grad=True)

    def collect(self) -> tuple[Tensor | None, int]:
        """Return the outlet's gradient (3,), or None if no compiled backward pass left one, and the
        examples of the other passes; then forget both."""
        n_uncompiled, self._n_uncompiled = self._n_uncompiled, 0
        left = None if self.outlet is None else self.outlet.grad
        if self.outlet is not None:
            self.outlet.grad = None
        return left, n_uncompiled

    def forward(self, module: nn.Module, x: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]
        """Return the normalised tensor, shaped as ``x``."""
        if torch.compiler.is_compiling():
            return self._apply(module, x, self.outlet, None)
        self.check(module, x)
        if not in_backward():
            self._n_uncompiled += len(x)
        return self._apply(module, x, None, self)

    def check(self, module: nn.Module, x: Tensor) -> None:
        """Count examples and uses. Raises UserError if there is no batch dimension."""
        for local_name in self.uses:
            if x.dim() <= self.use(module, local_name, "vector").dim():
                raise UserError(f"{self.name} got an input without a batch dimension")
        self.recorder.observe(self.name, len(x), x.shape[1] if x.dim() > 2 else None)

    def _apply(
        self, module: nn.Module, x: Tensor, outlet: Tensor | None, rule: "NormRule | None"
    ) -> Tensor:
        raise NotImplementedError

    def report_vectors(self, local_name: str, vectors: Tensor, shape: Sequence[int]) -> None:
        """Take each example's gradient (B, d) of gain or bias."""
        if local_name in self.uses:
            vectors = vectors.view(-1, *shape)
            self.uses[local_name].add_vectors(vectors)
            self.report_gradient(local_name, vectors.sum(0))


class LayerNormRule(NormRule):
    """``nn.LayerNorm``."""

    def _apply(
        self, module: Any, x: Tensor, outlet: Tensor | None, rule: NormRule | None
    ) -> Tensor:
        return cast(
            Tensor,
            _LayerNorm.apply(
                _cast_by_autocast(x),
                module.weight,
                module.bias,
                module.normalized_shape,
                module.eps,
                outlet,
                rule,
            ),
        )


class RMSNormRule(NormRule):
    """``nn.RMSNorm``, or our own RMSNorm, which computes the same in at least float32."""

    def _apply(
        self, module: Any, x: Tensor, outlet: Tensor | None, rule: NormRule | None
    ) -> Tensor:
        if self.plain is nn.RMSNorm.forward:
            x = _cast_by_autocast(x)
        epsilon = torch.finfo(x.dtype).eps if module.eps is None else module.eps
        shape = module.normalized_shape
        # The gradient of the weight is that of the gain.
        offset = getattr(module, "gain_offset", 0.0)
        gain = module.weight + offset if offset else module.weight
        return cast(Tensor, _RMSNorm.apply(x, gain, shape, epsilon, outlet, rule))


def _cast_by_autocast(x: Tensor) -> Tensor:
    """Cast as autocast does: to float32 on an accelerator, not at all on a processor."""
    device = x.device.type
    return x.float() if device != "cpu" and torch.is_autocast_enabled(device) else x


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        shape: tuple[int, ...],
        epsilon: float,
        outlet: Tensor | None,
        rule: NormRule | None,
    ) -> Tensor:
        ctx.rule, ctx.shape, ctx.has_bias = rule, shape, bias is not None
        gain = weight
        if x.dtype == torch.float32:  # as autocast does if parameters are narrower
            gain, bias = widened(weight), None if bias is None else widened(bias)
        with without_autocast(x):
            out, mean, inverse = torch.native_layer_norm(x, shape, gain, bias, epsilon)
        ctx.save_for_backward(x, weight, mean, inverse)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        grad_x, grad_weight, grad_bias, outlet = _gradients(ctx, grads[0], x, weight, mean, inverse)
        return grad_x, grad_weight, grad_bias, None, None, outlet, None


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        shape: tuple[int, ...],
        epsilon: float,
        outlet: Tensor | None,
        rule: NormRule | None,
    ) -> Tensor:
        wide = widened(x)
        dims = tuple(range(-len(shape), 0))
        if torch.compiler.is_compiling():
            inverse = wide.square().mean(dims, keepdim=True).add(epsilon).rsqrt()
            out = wide * inverse * weight
        elif wide.is_cuda and hasattr(torch.ops.aten, "_fused_rms_norm"):
            out, inverse = torch.ops.aten._fused_rms_norm(wide, shape, widened(weight), epsilon)
        else:
            norms = torch.linalg.vector_norm(wide, dim=dims, keepdim=True)
            inverse = norms.square_().div_(math.prod(shape)).add_(epsilon).rsqrt_()
            out = (wide * inverse).mul_(weight)
        ctx.save_for_backward(x, weight, inverse)
        ctx.rule, ctx.shape, ctx.has_bias = rule, shape, False
        return out.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        grad_x, grad_weight, _, outlet = _gradients(ctx, grads[0], x, weight, None, inverse)
        return grad_x, grad_weight, None, None, outlet, None


def _gradients(
    ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, mean: Tensor | None, inverse: Tensor
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Return gradients of input, gain, bias and outlet; report the uses of a recorded layer."""
    flat = (len(x), -1, weight.numel())
    statistics = (len(x), -1, 1)
    grad_x, gains, biases = norm_backward(
        grad.reshape(flat),
        x.reshape(flat),
        weight.reshape(-1),
        None if mean is None else mean.reshape(statistics),
        inverse.reshape(statistics),
    )
    outlet = None
    if ctx.rule is not None:
        ctx.rule.report_vectors("weight", gains, ctx.shape)
        if ctx.has_bias:
            ctx.rule.report_vectors("bias", biases, ctx.shape)
    else:
        squares = [gains.square().sum(), biases.square().sum(), gains.new_full((), len(x))]
        outlet = torch.stack(squares)
    grad_weight = gains.sum(0).view(weight.shape).to(weight.dtype)
    grad_bias = biases.sum(0).view(weight.shape).to(weight.dtype) if ctx.has_bias else None
    return grad_x.view(x.shape), grad_weight, grad_bias, outlet
