"""Settings of a phase's sparsity: dense, or masks that are drawn once and kept."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from feldspar.recipe.base import NameOrMapping, Settings


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


class StaticSparsity(Settings):
    """Random masks, drawn once from the recipe's seed and each tensor's name (2405.15743)."""

    type: Literal["static"]
    sparsity: Fraction
    """Share of entries in each targeted matrix that are zero and stay zero."""
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = ("attention", "feed_forward")
    """Parts of a block, or globs of parameter names; only matrices inside blocks are masked."""
    per_tensor: dict[str, Fraction] = {}
    """Globs of parameter names, each with its own sparsity; the last match counts."""
    sampling: Literal["exact", "bernoulli"] = "exact"
    """exact: as many zeros as the sparsity says. bernoulli: each entry is drawn independently."""


Sparsity = Annotated[Dense | StaticSparsity, Field(discriminator="type"), NameOrMapping]
