"""Backward pass of LayerNorm and RMSNorm with each example's gradient of gain and bias.

With n the normalised input and u = g * gain: dx = (u - mean(u) - n mean(u n)) / std; RMSNorm has no
mean(u). An example's gradients are the sums of g n and of g over its positions. The gradients of
the step are the sums of these over examples. So only B x d squares are computed in addition to a
plain backward pass.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from feldspar.noise_scale.norms.norm_kernel import (
    kernel_runs_on,
    norm_backward_on_accelerator,
)
from feldspar.noise_scale.products import widened

NATIVE_ENTRIES = 2**15
"""Size of an example from which a call of torch's own kernel pays on a processor."""
PIECE_ENTRIES = 2**17
"""Number of entries with which elementwise passes stay in a processor's cache."""


class NormGradients(NamedTuple):
    """Gradients of one norm layer: of the input, and of each example's gain and bias."""

    x: Tensor
    """(B, T, d)"""
    gains: Tensor
    """(B, d)"""
    biases: Tensor
    """(B, d): the sums of the upstream gradient, even if there is no bias."""


def norm_backward(
    grad: Tensor, x: Tensor, gain: Tensor, mean: Tensor | None, inverse: Tensor
) -> NormGradients:
    """Return the gradients from ``grad`` and ``x`` (B, T, d), ``gain`` (d,), ``mean`` (None:
    RMSNorm), ``inverse`` (B, T, 1).

    ``inverse`` is 1 / standard deviation or 1 / root mean square.
    """
    if torch.compiler.is_compiling():
        return closed_form(grad, x, gain, mean, inverse)
    if kernel_runs_on(x):
        return NormGradients(*norm_backward_on_accelerator(grad, x, gain, mean, inverse))
    if x.device.type != "cpu":
        return closed_form(grad, x, gain, mean, inverse)
    same = grad.dtype == x.dtype == gain.dtype
    if mean is not None and same and x[0].numel() >= NATIVE_ENTRIES:
        return _native(grad, x, gain, mean, inverse)
    return _by_pieces(grad, x, gain, mean, inverse)


def closed_form(
    grad: Tensor, x: Tensor, gain: Tensor, mean: Tensor | None, inverse: Tensor
) -> NormGradients:
    """Return the plain formula, which a compiler can fuse."""
    wide = widened(grad)
    normal = widened(x) * inverse if mean is None else (widened(x) - mean) * inverse
    product = wide * normal
    upstream = wide * gain
    grad_x = upstream - normal * (upstream * normal).mean(-1, keepdim=True)
    if mean is not None:
        grad_x = grad_x - upstream.mean(-1, keepdim=True)
    return NormGradients((grad_x * inverse).to(x.dtype), product.sum(1), wide.sum(1))


def _native(grad: Tensor, x: Tensor, gain: Tensor, mean: Tensor, inverse: Tensor) -> NormGradients:
    """Call torch's fused kernel for one example at a time."""
    shape = [x.shape[-1]]
    # The kernel assumes contiguous memory.
    grad, x = grad.contiguous(), x.contiguous()
    grad_x = torch.empty_like(x)
    gains, biases = x.new_empty(2, len(x), x.shape[-1])
    for example in range(len(x)):
        torch.ops.aten.native_layer_norm_backward.out(
            grad[example],
            x[example],
            shape,
            mean[example],
            inverse[example],
            gain,
            gain,
            [True, True, True],
            out0=grad_x[example],
            out1=gains[example],
            out2=biases[example],
        )
    return NormGradients(grad_x, gains, biases)


def _by_pieces(
    grad: Tensor, x: Tensor, gain: Tensor, mean: Tensor | None, inverse: Tensor
) -> NormGradients:
    """Apply the formula in place to as many examples at a time as fit in the cache."""
    n_examples, n_positions, width = x.shape
    grad_x = torch.empty_like(x)
    gains, biases = widened(x.new_empty(2, n_examples, width))
    averaging = widened(gain) / width
    step = max(1, PIECE_ENTRIES // (n_positions * width))
    for begin in range(0, n_examples, step):
        part = slice(begin, begin + step)
        wide, scale = widened(grad[part]), inverse[part]
        centred = widened(x[part]) if mean is None else widened(x[part]) - mean[part]
        normal = centred * scale
        product = wide * normal
        torch.sum(product, 1, out=gains[part])
        torch.sum(wide, 1, out=biases[part])
        share = (product @ averaging).unsqueeze(-1)
        out = (wide * gain).addcmul_(normal, share, value=-1)
        if mean is not None:
            out.sub_((wide @ averaging).unsqueeze(-1))
        grad_x[part] = out.mul_(scale)
    return NormGradients(grad_x, gains, biases)
