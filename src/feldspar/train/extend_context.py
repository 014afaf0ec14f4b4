"""Let a trained model read texts that are longer than those it was trained on.

Positions are scaled and weights stay, so that the result can be used at once or trained further.
"""

import copy
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from feldspar.core.artifact import require_writable
from feldspar.core.errors import UserError
from feldspar.huggingface.adapter import ModelDescription
from feldspar.huggingface.import_folder import import_model, write_imported
from feldspar.recipe.recorded import is_run
from feldspar.recipe.sections.model import LearnedPositions, ModelSettings
from feldspar.recipe.sections.position_scaling import (
    LinearScaling,
    NoScaling,
    PositionScaling,
    scaling_misfit,
)
from feldspar.train.opened_model import Model

NEEDS_TRAIN_LENGTH = ("yarn", "llama3")
"""Kinds of scaling that always need a train_length; its default is the model's longest context."""


@dataclass(frozen=True)
class Extension:
    """The wanted extension of a model's context, as ``feldspar.extend_context`` takes it."""

    kind: str = "linear"
    factor: float | None = None
    train_length: int | None = None
    length: int | None = None


def extend_context(model: Model, wanted: Extension) -> Model:
    """Return the model with scaled positions; it shares its weights with the one that is given.

    Errors are those of ``feldspar.extend_context``.
    """
    decoder = copy.copy(model.decoder)
    settings, scaling = _extended(decoder.settings, decoder.position_scaling, wanted)
    decoder.settings = settings
    decoder.scale_positions(scaling)
    text = None if model.text is None else replace(model.text, decoder=decoder)
    return replace(model, decoder=decoder, text=text)


def write_extended(
    source: Path, out: Path, wanted: Extension, overwrite: bool = False
) -> ModelDescription:
    """Write the model in the folder ``source``, extended, as an imported folder; return what it is.

    Tensors are copied one by one. Raises UserError for a run, where ``out`` exists already unless
    ``overwrite``, and as ``feldspar.extend_context``.
    """
    require_writable(out, "model", overwrite)
    if is_run(source):
        raise UserError(
            f"{source} is a run folder: a phase with position_scaling extends its context",
            do="add such a phase, or export it first: feldspar export RUN --out FOLDER",
        )
    found = import_model(source)
    settings, scaling = _extended(found.settings, found.scaling, wanted)
    description = replace(found.description, settings=settings, scaling=scaling)
    write_imported(replace(found, description=description), out, overwrite)
    return description


def _extended(
    settings: ModelSettings, present: PositionScaling, wanted: Extension
) -> tuple[ModelSettings, PositionScaling]:
    """Return the settings and the scaling of the extended model."""
    trained, length = settings.max_sequence_length, wanted.length
    if isinstance(settings.positions, LearnedPositions):
        raise UserError(
            "extend_context: the model has learned positions, a table that cannot be extended",
            do=f"use at most {trained} tokens, or train with a larger max_sequence_length",
        )
    scaling = present
    if wanted.factor is not None or wanted.train_length is not None or length is None:
        chosen = _scaling(wanted, trained)
        if misfit := scaling_misfit(chosen, settings):
            raise UserError(f"extend_context: {misfit}")
        scaling = _combined(present, chosen)
    limit = math.ceil(trained * (wanted.factor or 1)) if length is None else length
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < trained:
        raise UserError(
            "extend_context: length must be a whole number of tokens that is not below the "
            "model's longest context",
            found=limit,
            allowed=f"{trained} or more",
        )
    return settings.model_copy(update={"max_sequence_length": limit}), scaling


def _scaling(wanted: Extension, trained: int) -> PositionScaling:
    values: dict[str, Any] = {"type": wanted.kind}
    if wanted.factor is not None:
        values["factor"] = wanted.factor
    if wanted.train_length is not None:
        values["train_length"] = wanted.train_length
    elif wanted.kind in NEEDS_TRAIN_LENGTH:
        values["train_length"] = trained
    try:
        return TypeAdapter[PositionScaling](PositionScaling).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = f"{first['loc'][-1]}: " if len(first["loc"]) > 1 else ""
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"extend_context: {place}{message}") from None


def _combined(present: PositionScaling, wanted: PositionScaling) -> PositionScaling:
    """Return one scaling for two, one after the other."""
    if isinstance(present, NoScaling):
        return wanted
    if isinstance(present, LinearScaling) and isinstance(wanted, LinearScaling):
        one, other = present.factor, wanted.factor
        if one is not None and other is not None:
            return LinearScaling(type="linear", factor=one * other)
    raise UserError(
        f"extend_context: the model's positions are scaled already ({present.type}), and only "
        "linear factors can be combined",
        do="extend the model from which it was made",
    )
