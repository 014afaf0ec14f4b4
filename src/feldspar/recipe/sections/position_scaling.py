"""Settings of position scaling: longer contexts than a model was trained for."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    PositiveFloat,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from feldspar.recipe.base import NameOrMapping, Settings, without_defaults
from feldspar.recipe.sections.model import AlibiPositions, ModelSettings, RotaryPositions


def _divides(value: float) -> float:
    if 0 < value < 1:
        raise ValueError(
            f"the factor divides slopes and frequencies: write {1 / value:g}, not "
            f"{value:g}, to reach {1 / value:g} times as far"
        )
    if value < 1:
        raise ValueError(f"a factor must be 1 (no change) or more, not {value:g}")
    return value


Factor = Annotated[float, AfterValidator(_divides)]
TrainLength = Annotated[int, Field(gt=1, le=2**30)]


class NoScaling(Settings):
    """Positions are not scaled."""

    type: Literal["none"] = "none"


class LinearScaling(Settings):
    """Position interpolation (2310.13017): ALiBi slopes or rotary frequencies are divided by c."""

    type: Literal["linear"]
    factor: Factor | None = None
    """c for every length: wanted length / trained length."""
    train_length: TrainLength | None = None
    """Trained length in tokens, instead of factor: c = max(1, length / train_length)."""
    scope: Literal["sequence", "query"] = "sequence"
    """The length that is divided by train_length. sequence: the length of the whole sequence (as in
    the paper). query: the length up to the query (ALiBi only, our own variant); it is causal, so a
    key/value cache gives the same result."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.factor is None) == (self.train_length is None):
            raise ValueError("give either factor or train_length")
        if self.scope == "query" and self.train_length is None:
            raise ValueError("scope: query needs train_length; a fixed factor has no scope")
        return self


class NtkScaling(Settings):
    """NTK-aware scaling. ALiBi: slopes are divided by factor^(rank / (heads - 1)), where rank
    counts from the steepest to the shallowest slope. Rotary: the base is multiplied by factor^(d /
    (d - 2)), so the fastest frequency stays and the slowest one is divided by factor."""

    type: Literal["ntk"]
    factor: Factor
    """Divisor of the smallest slope, or of the slowest frequency."""
    train_length: TrainLength | None = None
    """Rotary only. With it, the factor in use is factor x length / train_length - (factor - 1): it
    grows with the sequence, and is 1 up to train_length tokens."""


class YarnScaling(Settings):
    """YaRN, rotary only (2309.00071). Slow frequencies are divided by factor, fast ones are kept,
    and those with 1 to 32 turns in train_length are interpolated. Cosine and sine are multiplied by
    0.1 ln(factor) + 1 unless attention_factor says otherwise."""

    type: Literal["yarn"]
    factor: Factor
    """Wanted length / trained length."""
    train_length: TrainLength
    """Trained context length, in tokens."""
    fast_turns: PositiveFloat = 32.0
    """Frequencies with more turns in train_length are kept."""
    slow_turns: PositiveFloat = 1.0
    """Frequencies with fewer turns in train_length are divided by factor."""
    attention_factor: PositiveFloat | None = None
    """Multiplies cosine and sine. Default: 0.1 ln(factor) + 1."""

    @property
    def multiplier(self) -> float:
        """The factor of cosine and sine, with the default filled in."""
        return self.attention_factor or 0.1 * math.log(self.factor) + 1

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(self, handler, ("fast_turns", "slow_turns", "attention_factor"))


class Llama3Scaling(Settings):
    """Llama 3.1, rotary only. Slow frequencies are divided by factor, fast ones are kept, and those
    with 1 to 4 turns in train_length are interpolated."""

    type: Literal["llama3"]
    factor: Factor
    """Divisor of the slow frequencies."""
    train_length: TrainLength
    """Trained context length, in tokens."""


PositionScaling = Annotated[
    NoScaling | LinearScaling | NtkScaling | YarnScaling | Llama3Scaling,
    Field(discriminator="type"),
    NameOrMapping,
]


def scaling_misfit(scaling: PositionScaling, model: ModelSettings) -> str | None:
    """Return the reason why ``scaling`` does not fit the positions of ``model``, or None."""
    kind = model.positions.type
    if isinstance(scaling, NoScaling):
        return None
    if kind not in ("alibi", "rotary"):
        return f"{scaling.type} scales ALiBi or rotary positions; the model has {kind}"
    if kind == "alibi":
        if isinstance(scaling, YarnScaling | Llama3Scaling):
            return f"{scaling.type} scales rotary positions; the model has alibi"
        if isinstance(scaling, NtkScaling) and scaling.train_length is not None:
            return "ntk with train_length scales rotary positions; the model has alibi"
        growing = isinstance(scaling, LinearScaling) and scaling.train_length is not None
        if growing and isinstance(model.positions, AlibiPositions) and model.positions.rounded:
            return "linear with train_length needs slopes that are not rounded; give a factor"
        if isinstance(scaling, NtkScaling) and model.n_heads == 1:
            return "ntk spreads its factor over the heads; the model has only one"
        return None
    if isinstance(scaling, LinearScaling) and scaling.scope == "query":
        return "scope: query works with alibi only; rotary keys are rotated once for all queries"
    if isinstance(scaling, NtkScaling) and rotated_width(model) == 2:
        return "ntk spreads its factor over the frequencies; the model has only one"
    return None


def rotated_width(model: ModelSettings) -> int:
    """Return how many dimensions of a head rotary positions rotate; 0 for other positions."""
    kind = model.positions
    return round(kind.fraction * model.head_width) if isinstance(kind, RotaryPositions) else 0
