"""Batch size of a phase: constant, in levels, a ramp, or steered by the noise scale."""

import itertools
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveFloat, model_validator

from feldspar.recipe.amounts import Amount, Unit
from feldspar.recipe.base import Count, Settings
from feldspar.recipe.sections.noise_scale import NoiseScaleBatch

MOST_STAIRS = 100_000
"""Limit on the steps of a ramp of batch sizes; each one is a segment of the plan."""


class ConstantBatch(Settings):
    """The same number of sequences in every step; a number of tokens is rounded down to whole
    sequences."""

    type: Literal["constant"] = "constant"
    sequences: Count | None = None
    """Sequences of each step."""
    tokens: PositiveFloat | None = None
    """Tokens of each step; rounded down to whole sequences."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.sequences is None) == (self.tokens is None):
            raise ValueError("give either sequences or tokens")
        return self


class BatchLevel(Settings):
    """A batch size that begins at some point of the phase."""

    from_: Annotated[Amount, Field(alias="from")]
    """Beginning of the level: steps or tokens of the phase."""
    sequences: Count
    """Sequences of each step."""


class BatchByTokens(Settings):
    """Batch sizes in levels."""

    type: Literal["by_tokens"]
    levels: Annotated[tuple[BatchLevel, ...], Field(min_length=1)]
    """Levels in order; the first begins at 0."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.levels[0].from_.value != 0:
            raise ValueError("levels.0.from: the first level must begin at 0")
        units = {level.from_.unit for level in self.levels}
        if len(units) > 1 or not units <= {Unit.STEPS, Unit.TOKENS}:
            raise ValueError("levels: give each `from` in steps, or each in tokens")
        starts = [level.from_.value for level in self.levels]
        for earlier, later in itertools.pairwise(starts):
            if later <= earlier:
                raise ValueError(f"levels: from {later} must be greater than {earlier}")
        return self


class BatchRamp(Settings):
    """A batch size that grows linearly in tokens, in whole quanta (the open-loop ramp of
    2411.00999)."""

    type: Literal["linear_ramp"]
    from_: Annotated[Amount, Field(alias="from")]
    """Sequences of each step at the start."""
    to: Amount
    """Sequences of each step at the end."""
    quantum: Amount
    """Each batch is a multiple of this many sequences."""
    over: Amount
    """Length of the ramp in tokens."""

    @model_validator(mode="after")
    def _whole_sequences(self) -> Self:
        for key in ("from_", "to", "quantum"):
            amount: Amount = getattr(self, key)
            if amount.unit is not Unit.SEQUENCES or amount.value < 1 or amount.value % 1:
                raise ValueError(f"{key.strip('_')}: a whole number of sequences is needed")
        if self.from_.value > self.to.value:
            raise ValueError(f"from: {self.from_} is more than {self.to}")
        if self.from_.value % self.quantum.value:
            raise ValueError(f"from: {self.from_} is not a multiple of {self.quantum}")
        if self.to.value % self.quantum.value:
            raise ValueError(f"to: {self.to} is not a multiple of {self.quantum}")
        stairs = (self.to.value - self.from_.value) / self.quantum.value
        if stairs > MOST_STAIRS:
            raise ValueError(
                f"quantum: {self.quantum} gives the ramp {stairs:.3g} batch sizes, more "
                f"than {MOST_STAIRS:,}; give a larger quantum"
            )
        if self.over.unit is not Unit.TOKENS or self.over.value <= 0:
            raise ValueError("over: an amount of tokens above 0 is needed")
        return self


def _constant_unless_typed(value: Any) -> Any:
    if isinstance(value, dict) and "type" not in value:
        return {"type": "constant", **value}
    return value


Batch = Annotated[
    ConstantBatch | BatchByTokens | BatchRamp | NoiseScaleBatch,
    Field(discriminator="type"),
    BeforeValidator(_constant_unless_typed),
]
