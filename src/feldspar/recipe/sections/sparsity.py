"""Settings of a phase's sparsity: dense, masks that are drawn once, or masks that move."""

import re
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from feldspar.recipe.amounts import Amount, Unit
from feldspar.recipe.base import Count, NameOrMapping, Settings, without_defaults

LATER_SETTINGS = ("block", "distribution", "pattern", "seed")
"""Settings that older recipes lack; at their defaults they are left out of what is written."""
SAME_SHARE = 1e-6
"""Largest difference between a sparsity and the share of zeros in a pattern."""


def _fraction(value: float) -> float:
    if 1 < value < 100:
        raise ValueError(f"sparsity is a fraction: write {value / 100:g} for {value:g} %")
    if not 0 <= value < 1:
        raise ValueError(f"sparsity must be 0 (dense) or more and less than 1, not {value:g}")
    return value


Fraction = Annotated[float, AfterValidator(_fraction)]


class Dense(Settings):
    """No entry is masked."""

    type: Literal["dense"] = "dense"


class MaskedSettings(Settings):
    """Settings of every sparsity with masks: which entries of which matrices are zero."""

    type: str
    """Kind of sparsity."""
    sparsity: Fraction
    """Share of entries that are zero: of each targeted matrix where the distribution is uniform,
    else of all targeted matrices together."""
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = ("attention", "feed_forward")
    """Parts of a block, or globs of parameter names; only matrices inside blocks are masked."""
    per_tensor: dict[str, Fraction] = {}
    """Globs of parameter names, each with its own sparsity; the last match counts. The distribution
    does not change these matrices."""
    block: tuple[Count, Count] = (1, 1)
    """Rows (outputs) and columns (inputs) of the blocks that are kept or zero as a whole."""
    distribution: Literal["uniform", "er", "erk"] = "uniform"
    """uniform: the same sparsity for each matrix. er (1707.04780): density in proportion to
    (inputs + outputs) / (inputs x outputs). erk (1911.11134): in proportion to the sum of the
    dimensions divided by their product, which is the same for matrices."""
    seed: Annotated[int, Field(ge=0)] | None = None
    """Seed of the masks, and of the entries that SET grows. Default: the recipe's seed. With it,
    masks and initial weights vary separately."""

    def mask_seed(self, recipe_seed: int) -> int:
        """Return the seed of the masks in a recipe with the seed ``recipe_seed``."""
        return recipe_seed if self.seed is None else self.seed

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        known = [name for name in LATER_SETTINGS if name in type(self).model_fields]
        return without_defaults(self, handler, known)


class StaticSparsity(MaskedSettings):
    """Random masks, drawn once from the recipe's seed and each tensor's name (2405.15743)."""

    type: Literal["static"]
    sampling: Literal["exact", "bernoulli"] = "exact"
    """exact: as many zeros as the sparsity says. bernoulli: each block is drawn independently."""
    pattern: str | None = None
    """unstructured (the default): single entries. block: whole blocks, whose size the key block
    says. N:M: of each M entries in a row, one after the other, N are kept; the sparsity must be
    1 - N/M."""

    @property
    def kept_of(self) -> tuple[int, int] | None:
        """N and M of the pattern; None without one."""
        if self.pattern is None:
            return None
        kept, group = self.pattern.split(":")
        return int(kept), int(group)

    @model_validator(mode="before")
    @classmethod
    def _block_says_it(cls, value: Any) -> Any:
        """Leave out a pattern that the key block, or its absence, already says.

        One mask then has one resolved recipe and one digest.
        """
        if not isinstance(value, dict) or value.get("pattern") not in ("unstructured", "block"):
            return value
        in_blocks = value.get("block", (1, 1)) not in ((1, 1), [1, 1])
        if value["pattern"] == "block" and not in_blocks:
            raise ValueError(
                "pattern: block needs the size of its blocks; add the key block with their rows "
                "and columns, for example block: [4, 4]"
            )
        if value["pattern"] == "unstructured" and in_blocks:
            raise ValueError(
                "pattern: unstructured masks single entries, but block asks for whole blocks; "
                "remove block, or write pattern: block"
            )
        return {key: item for key, item in value.items() if key != "pattern"}

    @model_validator(mode="after")
    def _pattern_fits(self) -> Self:
        if self.pattern is None:
            return self
        if not re.fullmatch(r"[0-9]{1,9}:[0-9]{1,9}", self.pattern):
            raise ValueError(
                f"pattern: {self.pattern!r} is none; write unstructured, block, or N:M in quotes, "
                'such as "2:4"'
            )
        kept, group = self.kept_of or (0, 0)
        if not 0 < kept < group:
            raise ValueError(
                f"pattern: {self.pattern} must keep at least 1 entry and fewer than all {group}"
            )
        share = float(1 - Decimal(kept) / Decimal(group))
        if abs(self.sparsity - share) > SAME_SHARE:
            raise ValueError(
                f"sparsity: it is {self.sparsity:g}, but the pattern {self.pattern} leaves "
                f"{share:g} of the entries zero; write sparsity: {share:g}"
            )
        if any(value and abs(value - share) > SAME_SHARE for value in self.per_tensor.values()):
            raise ValueError(
                f"per_tensor: with the pattern {self.pattern} a matrix is dense (0) or has the "
                f"sparsity {share:g}; remove the other values"
            )
        for key in ("block", "distribution", "sampling"):
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(
                    f"{key}: the pattern {self.pattern} already says which entries are kept; "
                    f"remove {key} or pattern"
                )
        return self


class MovingSettings(MaskedSettings):
    """Settings of every sparsity whose masks change at regular steps of the phase."""

    every: Amount = Amount(Decimal(100), Unit.STEPS)
    """Distance between two changes of the masks."""
    begin: Amount = Amount(Decimal(0), Unit.STEPS)
    """Position in the phase after which the masks change."""
    end: Amount = Amount(Decimal(75), Unit.PERCENT_OF_PHASE)
    """Position in the phase from which the masks stay as they are."""


class RegrownSettings(MovingSettings):
    """Settings of masks that drop small weights and grow as many others."""

    drop_fraction: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of the kept entries that the first change drops; it falls to 0 at the end, by a
    cosine."""
    allow_regrow: bool = True
    """An entry that was just dropped may be grown again by the same change."""


class SetSparsity(RegrownSettings):
    """Masks that drop the smallest weights and grow random entries (SET, 1707.04780)."""

    type: Literal["set"]


class RigLSparsity(RegrownSettings):
    """Masks that drop the smallest weights and grow the entries with the largest gradients (RigL,
    1911.11134)."""

    type: Literal["rigl"]


class GradualSparsity(MovingSettings):
    """Masks that drop the smallest weights until the sparsity is reached (gradual magnitude
    pruning, 1710.01878)."""

    type: Literal["gradual"]
    initial_sparsity: Fraction = 0.0
    """Share of zeros at the start; it grows to sparsity by a cubic curve."""

    @model_validator(mode="after")
    def _sparsity_grows(self) -> Self:
        if self.initial_sparsity > self.sparsity:
            raise ValueError(
                f"initial_sparsity: {self.initial_sparsity:g} is more than sparsity, "
                f"{self.sparsity:g}; entries that were dropped do not come back"
            )
        return self


MovingSparsity = SetSparsity | RigLSparsity | GradualSparsity
"""Kinds of sparsity whose masks change during a phase."""
AnySparsity = Dense | StaticSparsity | MovingSparsity
"""Every kind of sparsity that a phase can have."""


def without_moves(settings: AnySparsity) -> Dense | StaticSparsity:
    """Return the settings of a phase that inherits masks: they no longer move."""
    if isinstance(settings, Dense | StaticSparsity):
        return settings
    shared = {name: getattr(settings, name) for name in MaskedSettings.model_fields}
    return StaticSparsity(**shared | {"type": "static"})


Sparsity = Annotated[AnySparsity, Field(discriminator="type"), NameOrMapping]
"""A phase's ``sparsity`` as a recipe writes it."""
