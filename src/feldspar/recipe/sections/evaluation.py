"""Settings of validation during training, of the final evaluation, and of the length sweep."""

from typing import Annotated, Literal

from pydantic import Field

from feldspar.recipe.amounts import Amount
from feldspar.recipe.base import Count, Settings
from feldspar.recipe.sections.position_scaling import PositionScaling

Measure = Literal["loss_by_position", "sliding_window", "passkey", "key_value", "lines"]


class LengthSweepSettings(Settings):
    """Evaluate a trained model at several lengths, with several position scalings."""

    lengths: Annotated[tuple[Count, ...], Field(min_length=1)]
    """Tokens of a window or of a question; may exceed the trained length."""
    scalings: tuple[PositionScaling, ...] = ()
    """Position scalings to compare; default: the model's own."""
    train_length: Count | None = None
    """Tokens of the longest context in training. Default: that of a run's phases; of another
    model what its position scaling says, else its max_sequence_length."""
    measures: Annotated[tuple[Measure, ...], Field(min_length=1)] = (
        "loss_by_position",
        "sliding_window",
    )
    """loss_by_position; sliding_window (with windows that do not overlap too); and the retrieval
    tasks passkey, key_value and lines."""
    documents: Count = 32
    """Number of held-out documents: the first ones that are long enough. They are the same at each
    length."""
    questions: Count = 33
    """Number of questions of each retrieval task at each length, spread over eleven depths."""


class EvaluationSettings(Settings):
    """When held-out loss is measured, and on which documents."""

    every: Amount = Amount.parse("10% of run")
    """Distance between two validations; there is one at the end too."""
    holdout: Literal["all"] | tuple[str, ...] = "all"
    """Sources whose held-out documents are used."""
    validation_sequences: Literal["auto"] | Count = "auto"
    """Sequences of each source in each validation during training. auto: 64, or fewer where all
    validations together would need more than 5 % of the training FLOPs."""
    length_sweep: LengthSweepSettings | None = None
    """Settings of `evaluate --length-sweep`."""
