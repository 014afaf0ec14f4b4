"""Settings of LoRA: trained low-rank updates of frozen matrices."""

from typing import Annotated

from pydantic import Field, PositiveFloat

from feldspar.recipe.base import Count, Settings


class LoraSettings(Settings):
    """LoRA (2106.09685): a frozen matrix W acts as W + (alpha / rank) B A, and only A and B are
    trained."""

    rank: Count
    """Rows of A and columns of B, for each matrix."""
    alpha: PositiveFloat
    """Size of the update, before it is divided by the rank."""
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = ("hidden",)
    """Matrices of the blocks that get an update. hidden: all; query, key, value: rows of the fused
    matrix; attention_output, feed_forward_input, feed_forward_output; or globs of their names."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of A's inputs that are dropped in training."""

    @property
    def scale(self) -> float:
        """The factor of the product B A."""
        return self.alpha / self.rank
