"""Scale positions to contexts longer than those in training, by pure functions.

ALiBi: position interpolation (2310.13017) divides the slopes. Rotary: the frequencies change. Where
a scaling grows with the length, the length is one number for the whole sequence, or a tensor (t,)
or (b, t) with a length for each position.
"""

import math

import torch
from torch import Tensor

from feldspar.model.positions import rotary_frequencies
from feldspar.recipe.sections.model import RotaryPositions
from feldspar.recipe.sections.position_scaling import (
    LinearScaling,
    Llama3Scaling,
    NoScaling,
    NtkScaling,
    PositionScaling,
    YarnScaling,
)

Length = int | Tensor
"""Sequence length of a growing scaling: one for all positions, or one for each."""

LLAMA3_FAST_TURNS, LLAMA3_SLOW_TURNS = 4, 1


def grows_with_length(scaling: PositionScaling) -> bool:
    """Tell whether the length of the whole sequence changes the encoding of each position.

    Then each new token changes all positions: a cache must know the length ahead, and rows must not
    be padded.
    """
    if isinstance(scaling, LinearScaling):
        return scaling.train_length is not None and scaling.scope == "sequence"
    return isinstance(scaling, NtkScaling) and scaling.train_length is not None


def scaled_slopes(
    slopes: list[float],
    scaling: PositionScaling,
    length: Length,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return ALiBi's slopes under ``scaling``: (h,); (h, t) or (b, h, t) for lengths of positions.

    Slopes become smaller, so that the heads see farther. NTK (published for a power of two of
    heads) goes by the rank of a slope, steep to shallow, whatever the number of heads. Raises
    TypeError for a scaling of rotary positions, ValueError for NTK with a single head.
    """
    if isinstance(scaling, NtkScaling):
        if len(slopes) < 2:
            raise ValueError("ntk spreads its factor over the heads; there is only one")
        steep_first = sorted(slopes, reverse=True)
        last = len(slopes) - 1
        slopes = [slope / scaling.factor ** (steep_first.index(slope) / last) for slope in slopes]
    elif not isinstance(scaling, NoScaling | LinearScaling):
        raise TypeError(f"{scaling.type} does not scale ALiBi")
    factor = linear_factor(scaling, length, dtype) if isinstance(scaling, LinearScaling) else 1.0
    if isinstance(factor, Tensor):
        return torch.tensor(slopes, dtype=dtype, device=device)[:, None] / factor.unsqueeze(-2)
    return torch.tensor([slope / factor for slope in slopes], dtype=dtype, device=device)


def linear_factor(scaling: LinearScaling, length: Length, dtype: torch.dtype) -> Tensor | float:
    """Return the factor c >= 1: the fixed one, or length / train_length where that exceeds 1."""
    if scaling.factor is not None:
        return scaling.factor
    assert scaling.train_length is not None, "one of the two, say the settings"
    return _stretch(length, scaling.train_length, dtype)


def _stretch(length: Length, train_length: int, dtype: torch.dtype) -> Tensor | float:
    if isinstance(length, int):
        return max(1.0, length / train_length)
    return (length.to(dtype) / train_length).clamp_min(1.0)


def scaled_frequencies(
    settings: RotaryPositions,
    head_dim: int,
    scaling: PositionScaling,
    length: Length,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, float]:
    """Return radians per position of each rotated pair, (p,) or (..., t, p), and the multiplier of
    cosine and sine.
    """
    plain = rotary_frequencies(settings, head_dim, dtype, device)
    if isinstance(scaling, NoScaling):
        return plain, 1.0
    if isinstance(scaling, LinearScaling):
        factor = linear_factor(scaling, length, dtype)
        return plain / (factor[..., None] if isinstance(factor, Tensor) else factor), 1.0
    if isinstance(scaling, NtkScaling):
        base = ntk_base(settings.base, 2 * len(plain), scaling, length, dtype)
        base = base[..., None] if isinstance(base, Tensor) else base
        return rotary_frequencies(settings, head_dim, dtype, device, base), 1.0
    if isinstance(scaling, YarnScaling):
        divided = yarn_share(settings.base, 2 * len(plain), scaling).to(plain)
        return plain * (1 - divided + divided / scaling.factor), scaling.multiplier
    return _llama3(plain, scaling), 1.0


def ntk_base(
    base: float, rotated: int, scaling: NtkScaling, length: Length, dtype: torch.dtype
) -> Tensor | float:
    """Return the base that divides the slowest of ``rotated`` / 2 frequencies by the factor."""
    power = rotated / (rotated - 2)
    if scaling.train_length is None:
        return base * scaling.factor**power
    stretch = _stretch(length, scaling.train_length, dtype)
    return base * (scaling.factor * stretch - (scaling.factor - 1)) ** power


def yarn_share(base: float, rotated: int, scaling: YarnScaling) -> Tensor:
    """Return how far each pair's frequency is divided (p,), in float64: 0 is kept, 1 is divided."""

    def pair_with(turns: float) -> float:
        per_turn = scaling.train_length / (turns * 2 * math.pi)
        return rotated * math.log(per_turn) / (2 * math.log(base))

    low = max(math.floor(pair_with(scaling.fast_turns)), 0)
    high = min(math.ceil(pair_with(scaling.slow_turns)), rotated - 1)
    pairs = torch.arange(rotated // 2, dtype=torch.float64)
    return ((pairs - low) / max(high - low, 1e-3)).clamp(0, 1)


def _llama3(plain: Tensor, scaling: Llama3Scaling) -> Tensor:
    turns = scaling.train_length * plain / (2 * math.pi)
    kept = (turns - LLAMA3_SLOW_TURNS) / (LLAMA3_FAST_TURNS - LLAMA3_SLOW_TURNS)
    kept = kept.clamp(0, 1)
    return plain * (kept + (1 - kept) / scaling.factor)
