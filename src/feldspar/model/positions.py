"""Encodings of the order of tokens: ALiBi slopes, rotary frequencies, positions in documents.

Shapes: b sequences, t positions, h heads, p rotated pairs of dimensions.
"""

import math
from typing import Any, cast

import torch
from torch import Tensor

from feldspar.recipe.sections.model import RotaryPositions


def alibi_slopes(n_heads: int, max_exponent: float = 8.0) -> list[float]:
    """Return the slope of each query head (2108.12409, section 3), for any number of heads.

    The largest power of two P <= n_heads gives 2^(-max_exponent h / P); the other heads take the
    odd members of the sequence for 2P. The order is part of a trained model. Raises ValueError for
    anything but a whole number of heads from 1.
    """
    if not isinstance(n_heads, int) or n_heads < 1:
        raise ValueError(f"a whole number of heads from 1 is needed, not {n_heads}")
    power = 2 ** int(math.log2(n_heads))
    slopes = [2.0 ** (-max_exponent * head / power) for head in range(1, power + 1)]
    extra = [
        2.0 ** (-max_exponent * (2 * rank - 1) / (2 * power))
        for rank in range(1, n_heads - power + 1)
    ]
    return slopes + extra


def rounded_biases(slopes: Tensor, positions: Tensor) -> Tensor:
    """Return Falcon's bias of each key: slope x position, with slope, position and product rounded
    to bfloat16.

    Slopes (h,) and positions (t,) or (b, t) give (h, t) or (b, h, t), in the slopes' type.
    """
    low = torch.bfloat16
    return (slopes.to(low)[:, None] * positions[..., None, :].to(low)).to(slopes.dtype)


def document_positions(document_ids: Tensor) -> Tensor:
    """Return positions that restart at 0 in each document; (b, t) ids to (b, t) positions."""
    index = torch.arange(document_ids.shape[1], device=document_ids.device).expand_as(document_ids)
    begins = torch.ones_like(document_ids, dtype=torch.bool)
    begins[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    return index - torch.where(begins, index, 0).cummax(dim=1).values


def document_lengths(document_ids: Tensor) -> Tensor:
    """Return the length of the document around each position; (b, t) ids to (b, t) lengths."""
    begins = torch.ones_like(document_ids, dtype=torch.int64)
    begins[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    number = begins.cumsum(dim=1) - 1
    counts = torch.zeros_like(number).scatter_add_(1, number, torch.ones_like(number))
    return counts.gather(1, number)


def rotary_frequencies(
    settings: RotaryPositions,
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    base: Tensor | float | None = None,
) -> Tensor:
    """Return radians per position, base^(-2j/r), of each rotated pair (..., p); r = 2p dimensions.

    ``base`` replaces that of ``settings``; it may be a tensor (..., 1).
    """
    rotated = round(settings.fraction * head_dim)
    exponents = torch.arange(0, rotated, 2, device=device, dtype=dtype) / rotated
    return (settings.base if base is None else base) ** -exponents


def rotary_tables(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of position times frequency, each (..., t, 1, p).

    ``positions`` is (t,) or (b, t), ``frequencies`` (p,) or (..., t, p), which gives the dtype.
    """
    angles = positions.to(frequencies.dtype)[..., None] * frequencies
    return angles.cos().unsqueeze(-2), angles.sin().unsqueeze(-2)


def rotate(x_bthd: Tensor, cosine: Tensor, sine: Tensor, interleaved: bool) -> Tensor:
    """Rotate the first 2p dimensions of every head; pass the rest through."""
    if torch.compiler.is_compiling():
        return _rotated_functionally(x_bthd, cosine, sine, interleaved)
    return cast(Tensor, _Rotate.apply(x_bthd, cosine, sine, interleaved))


def _pairs(x: Tensor, n_pairs: int, interleaved: bool) -> tuple[Tensor, Tensor]:
    if interleaved:
        return x[..., 0 : 2 * n_pairs : 2], x[..., 1 : 2 * n_pairs : 2]
    return x[..., :n_pairs], x[..., n_pairs : 2 * n_pairs]


def _join(first: Tensor, second: Tensor, interleaved: bool) -> Tensor:
    """Undo `_pairs`."""
    if interleaved:
        return torch.stack([first, second], dim=-1).flatten(-2)
    return torch.cat([first, second], dim=-1)


def _rotated(x: Tensor, cosine: Tensor, sine: Tensor, interleaved: bool) -> Tensor:
    n_pairs = cosine.shape[-1]
    first, second = _pairs(x, n_pairs, interleaved)
    # Multiply whole heads: over halves of heads the inner loops are too short.
    out = x[..., : 2 * n_pairs] * _join(cosine, cosine, interleaved)
    swapped = torch.empty_like(out)
    swapped_first, swapped_second = _pairs(swapped, n_pairs, interleaved)
    swapped_first.copy_(second)
    swapped_second.copy_(first)
    out = out.addcmul_(swapped, _join(-sine, sine, interleaved)).to(x.dtype)
    return out if 2 * n_pairs == x.shape[-1] else torch.cat([out, x[..., 2 * n_pairs :]], dim=-1)


def _rotated_functionally(x: Tensor, cosine: Tensor, sine: Tensor, interleaved: bool) -> Tensor:
    """Rotate without writing in place, so that a compiler can fuse the operations."""
    n_pairs = cosine.shape[-1]
    first, second = _pairs(x, n_pairs, interleaved)
    turned = (first * cosine - second * sine, first * sine + second * cosine)
    rotated = _join(*turned, interleaved)
    return torch.cat([rotated.to(x.dtype), x[..., 2 * n_pairs :]], dim=-1)


class _Rotate(torch.autograd.Function):
    """Rotate by the opposite angle, so that only the tables are saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor, interleaved: bool) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        ctx.interleaved = interleaved
        return _rotated(x, cosine, sine, interleaved)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        cosine, sine = ctx.saved_tensors
        return _rotated(grads[0], cosine, -sine, ctx.interleaved), None, None, None
