"""Validation during training, the final figures, and how far a model's context reaches."""

from typing import Annotated, Literal

from pydantic import Field

from feldspar.recipe.amounts import Amount
from feldspar.recipe.base import Count, Settings
from feldspar.recipe.sections.model import PositionScaling

Measure = Literal["loss_by_position", "sliding_window", "passkey", "key_value", "lines"]


class LengthSweepSettings(Settings):
    """A trained model at several lengths, its positions scaled in several ways."""

    lengths: Annotated[tuple[Count, ...], Field(min_length=1)]
    """Tokens of a window or of a question; may be more than was trained on."""
    scalings: tuple[PositionScaling, ...] = ()
    """Scalings of positions to compare; default: the one that the model has."""
    measures: Annotated[tuple[Measure, ...], Field(min_length=1)] = (
        "loss_by_position",
        "sliding_window",
    )
    """loss_by_position, sliding_window (and windows that do not overlap), and retrieval: passkey,
    key_value, lines."""
    documents: Count = 32
    """Held-out documents, the first that are long enough; the same at every length."""
    questions: Count = 33
    """Questions of each retrieval task at each length, spread over eleven depths."""


class EvaluationSettings(Settings):
    """When and on what held-out loss is measured."""

    every: Amount = Amount.parse("10% of run")
    """Validation happens each time this much was trained on, and at the end."""
    holdout: Literal["all"] | tuple[str, ...] = "all"
    """Sources whose held-out documents are used."""
    validation_sequences: Literal["auto"] | Count = "auto"
    """Sequences per source in each validation during training; auto: 64, or fewer where all
    validations together would take more than a tenth of the training's FLOPs."""
    length_sweep: LengthSweepSettings | None = None
    """What `evaluate --length-sweep` measures of the trained model."""
