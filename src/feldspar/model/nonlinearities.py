"""The nonlinearities of a decoder: GELU, ReLU and SiLU.

GELU in its tanh form (1606.08415) is computed at half the cost on a processor. With
u = 2 sqrt(2/pi) (x + 0.044715 x^3) it is x sigmoid(u), since (1 + tanh(u/2)) / 2 = sigmoid(u), and
a sigmoid costs a fraction of torch's tanh there. Pieces that fit in the cache are computed one
after the other. Other devices use torch's own kernel.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from feldspar.recipe.sections.model import FeedForwardKind

LINEAR = 2 * math.sqrt(2 / math.pi)
CUBIC = 0.044715 * LINEAR
PIECE_ENTRIES = 2**17


def gelu(x: Tensor) -> Tensor:
    """Return the tanh form of GELU, element by element, for any shape."""
    wide = x.dtype in (torch.float32, torch.float64)
    if x.device.type != "cpu" or not wide or torch.compiler.is_compiling():
        return F.gelu(x, approximate="tanh")
    return cast(Tensor, _Gelu.apply(x))


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        for values, target in zip(*_pieces(x, out), strict=True):
            torch.mul(values, values, out=target)
            target.mul_(CUBIC).add_(LINEAR).mul_(values).sigmoid_().mul_(values)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """Compute the gradient; the derivative is s (1 + (1 - s) x u'), with s = sigmoid(u)."""
        (x,) = ctx.saved_tensors
        grad = grads[0].contiguous()
        out = torch.empty_like(grad)
        pieces = _pieces(x, grad, out)
        room = x.new_empty(2, *pieces[0][0].shape)
        for values, incoming, target in zip(*pieces, strict=True):
            slope, share = room[:, : len(values)]
            torch.mul(values, values, out=slope)
            torch.mul(slope, CUBIC, out=share)
            share.add_(LINEAR).mul_(values).sigmoid_()
            slope.mul_(3 * CUBIC).add_(LINEAR).mul_(values)
            torch.mul(incoming, share, out=target)
            target.mul_(share.neg_().add_(1).mul_(slope).add_(1))
        return out


def _pieces(x: Tensor, *others: Tensor) -> list[tuple[Tensor, ...]]:
    """Cut tensors of one shape into the same pieces: entries, or rows where ``x`` has gaps between
    them, as the gate has beside the other half."""
    if x.is_contiguous():
        return [tensor.view(-1).split(PIECE_ENTRIES) for tensor in (x, *others)]
    n_rows = max(1, PIECE_ENTRIES // x.shape[-1])
    return [tensor.flatten(0, -2).split(n_rows) for tensor in (x, *others)]


ACTIVATIONS: dict[FeedForwardKind, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "gelu_erf": F.gelu,
    "relu": F.relu,
    "swiglu": F.silu,
    "geglu": gelu,
    "geglu_erf": F.gelu,
}
"""The nonlinearity of each kind of feed-forward layer."""
