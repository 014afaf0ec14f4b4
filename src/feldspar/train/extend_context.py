"""Let a trained model read texts that are longer than those it was trained on.

Positions are scaled and weights stay, so that the result can be used at once or trained further. A
table of learned positions is stretched: it gets a row for each position, between two of its rows.
"""

import copy
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from feldspar.core.artifact import require_writable
from feldspar.core.errors import UserError
from feldspar.huggingface.adapter import ModelDescription
from feldspar.huggingface.import_folder import import_model, write_imported
from feldspar.model.layers import PositionEmbedding
from feldspar.recipe.recorded import is_run
from feldspar.recipe.sections.model import LearnedPositions, ModelSettings
from feldspar.recipe.sections.position_scaling import (
    LinearScaling,
    NoScaling,
    PositionScaling,
    scaling_misfit,
)
from feldspar.runtime.tensor_file import ReplacedTensors
from feldspar.train.opened_model import Model

NEEDS_TRAIN_LENGTH = ("yarn", "llama3")
"""Kinds of scaling that always need a train_length; its default is the model's longest context."""

POSITION_TABLE = "position_embedding.weight"


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
    if (table := decoder.position_embedding) is not None:
        longer = PositionEmbedding(settings.max_sequence_length, settings.d_model)
        rows = stretched(table.weight.detach(), settings.max_sequence_length, wanted)
        longer.weight = nn.Parameter(rows)
        decoder._modules = {**decoder._modules, "position_embedding": longer}
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
    state = found.state
    if POSITION_TABLE in state:
        rows = stretched(state[POSITION_TABLE], settings.max_sequence_length, wanted)
        state = ReplacedTensors(state, {POSITION_TABLE: rows})
    write_imported(replace(found, description=description, state=state), out, overwrite)
    return description


def stretched(table: Tensor, length: int, wanted: Extension) -> Tensor:
    """Return ``length`` rows for a learned table (n, d), in its type: row i lies at i / factor.

    Between two rows it is their weighted mean; positions beyond the last row take that row.
    """
    assert wanted.factor is not None, "looked at with the settings"
    last = len(table) - 1
    places = (torch.arange(length, dtype=torch.float64) / wanted.factor).clamp_max(last)
    below = places.long()
    share = (places - below)[:, None].to(table.device)
    rows = table.double()
    return torch.lerp(rows[below], rows[(below + 1).clamp_max(last)], share).to(table.dtype)


def _extended(
    settings: ModelSettings, present: PositionScaling, wanted: Extension
) -> tuple[ModelSettings, PositionScaling]:
    """Return the settings and the scaling of the extended model."""
    trained, length = settings.max_sequence_length, wanted.length
    learned = isinstance(settings.positions, LearnedPositions)
    scaling = present
    if wanted.factor is not None or wanted.train_length is not None or length is None:
        chosen = _scaling(wanted, trained)
        if not learned:
            if misfit := scaling_misfit(chosen, settings):
                raise UserError(f"extend_context: {misfit}")
            scaling = _combined(present, chosen)
    limit = math.ceil(trained * (wanted.factor or 1)) if length is None else length
    if learned and (wanted.kind != "linear" or wanted.factor is None):
        raise UserError(
            "extend_context: the model has a table of learned positions, which only a linear "
            "factor stretches",
            do="give factor: the wanted length / the trained length",
        )
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
