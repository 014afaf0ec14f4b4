"""Validation during training and the final figures."""

from typing import Literal

from pydantic import PositiveInt

from feldspar.recipe.amounts import Amount
from feldspar.recipe.base import Settings


class EvaluationSettings(Settings):
    """When and on what held-out loss is measured."""

    every: Amount = Amount.parse("10% of run")
    """Validation happens each time this much was trained on, and at the end."""
    holdout: Literal["all"] | tuple[str, ...] = "all"
    """Sources whose held-out documents are used."""
    validation_sequences: PositiveInt = 64
    """Sequences per source in each validation during training."""
