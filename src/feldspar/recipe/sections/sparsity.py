"""Sparsity of a phase: dense, or masks that are drawn once and stay."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from feldspar.recipe.base import NameOrMapping, Settings


def _fraction(value: float) -> float:
    if 1 < value < 100:
        raise ValueError(f"sparsity is a fraction: write {value / 100:g} for {value:g} %")
    if not 0 <= value < 1:
        raise ValueError(f"{value:g} is no sparsity: 0 (dense) or more, less than 1")
    return value


Fraction = Annotated[float, AfterValidator(_fraction)]


class Dense(Settings):
    """Every entry is kept."""

    type: Literal["dense"] = "dense"


class StaticSparsity(Settings):
    """Random masks, drawn once from the recipe's seed and each tensor's name (2405.15743)."""

    type: Literal["static"]
    sparsity: Fraction
    """Share of entries that are zero and stay zero, in every targeted matrix."""
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = ("attention", "feed_forward")
    """Parts of a block, or globs of parameter names; only matrices inside blocks are masked."""
    per_tensor: dict[str, Fraction] = {}
    """Globs of parameter names and their own sparsity; the last match counts."""
    sampling: Literal["exact", "bernoulli"] = "exact"
    """exact: as many zeros as the sparsity says; bernoulli: each entry by itself."""


Sparsity = Annotated[Dense | StaticSparsity, Field(discriminator="type"), NameOrMapping]
