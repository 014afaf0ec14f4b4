"""Rotary and ALiBi positions, and their scaling to longer contexts. This file needs torch only.

Shapes: b sequences, t queries, h heads, p rotated pairs of dimensions.
"""

import math
from typing import Any

import torch
from torch import Tensor

Scaling = dict[str, Any]


def alibi_slopes(n_heads: int, max_exponent: float) -> list[float]:
    """Return the slope of each head (ALiBi, 2108.12409, for any number of heads)."""
    power = 2 ** int(math.log2(n_heads))
    slopes = [2.0 ** (-max_exponent * head / power) for head in range(1, power + 1)]
    extra = range(1, n_heads - power + 1)
    return slopes + [2.0 ** (-max_exponent * (2 * rank - 1) / (2 * power)) for rank in extra]


def stretch(lengths: Tensor, scaling: Scaling) -> Tensor:
    """Divide lengths (b or 1, t or 1) by train_length; lengths up to train_length give 1."""
    return (lengths / scaling["train_length"]).clamp_min(1.0)


def scaled_slopes(slopes: Tensor, scaling: Scaling, lengths: Tensor | None) -> Tensor:
    """Divide slopes (h,) as the scaling says: (b or 1, h, t or 1, 1)."""
    if scaling["type"] == "ntk":
        ranks = slopes.argsort(descending=True).argsort().to(slopes.dtype)
        slopes = slopes / scaling["factor"] ** (ranks / (len(slopes) - 1))
    slopes = slopes[None, :, None, None]
    if scaling["type"] != "linear":
        return slopes
    if lengths is None:
        return slopes / scaling["factor"]
    return slopes / stretch(lengths, scaling)[:, None, :, None]


def scaled_frequencies(
    exponents: Tensor, base: float, scaling: Scaling, lengths: Tensor | None
) -> tuple[Tensor, float]:
    """Return radians per position, (p,) or (b, t or 1, p), and a factor for cosine and sine."""
    plain, kind, n_pairs = base**-exponents, scaling["type"], len(exponents)
    factor: Any = scaling.get("factor")
    length: Any = scaling.get("train_length")
    if kind == "linear":
        return plain / (factor if lengths is None else stretch(lengths, scaling)[..., None]), 1.0
    if kind == "ntk":
        if lengths is not None:
            factor = factor * stretch(lengths, scaling)[..., None] - (factor - 1)
        return (base * factor ** (n_pairs / (n_pairs - 1))) ** -exponents, 1.0
    if kind == "yarn":

        def pair_with(turns: float) -> float:
            return n_pairs * math.log(length / (turns * 2 * math.pi)) / math.log(base)

        low = max(math.floor(pair_with(scaling.get("fast_turns", 32))), 0)
        high = min(math.ceil(pair_with(scaling.get("slow_turns", 1))), 2 * n_pairs - 1)
        pairs = torch.arange(n_pairs, dtype=plain.dtype, device=plain.device)
        divided = ((pairs - low) / max(high - low, 1e-3)).clamp(0, 1)
        multiplier = scaling.get("attention_factor") or 0.1 * math.log(factor) + 1
        return plain * (1 - divided + divided / factor), multiplier
    if kind == "llama3":
        kept = ((length * plain / (2 * math.pi) - 1) / 3).clamp(0, 1)
        return plain * (kept + (1 - kept) / factor), 1.0
    return plain, 1.0


def rotate(x: Tensor, cosine: Tensor, sine: Tensor, interleaved: bool) -> Tensor:
    """Rotate the first dimensions of x (b, h, t, head_dim) by the tables (b, 1, t, pairs)."""
    n_pairs = cosine.shape[-1]
    if interleaved:
        first, second = x[..., 0 : 2 * n_pairs : 2], x[..., 1 : 2 * n_pairs : 2]
    else:
        first, second = x[..., :n_pairs], x[..., n_pairs : 2 * n_pairs]
    turned = (first * cosine - second * sine, first * sine + second * cosine)
    rotated = torch.stack(turned, -1).flatten(-2) if interleaved else torch.cat(turned, -1)
    return torch.cat([rotated.to(x.dtype), x[..., 2 * n_pairs :]], dim=-1)
