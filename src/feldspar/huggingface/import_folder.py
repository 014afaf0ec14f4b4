"""Read a Hugging Face folder as a decoder's settings and weights; no code of the folder runs."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from feldspar.core.artifact import open_if_artifact
from feldspar.core.errors import UserError
from feldspar.core.files import new_folder, write_atomically
from feldspar.core.json_files import read_json
from feldspar.core.manifest import MANIFEST_NAME
from feldspar.core.progress import say
from feldspar.huggingface.architectures import of_model_type
from feldspar.huggingface.declared import declared_multipliers
from feldspar.huggingface.folding import fold, is_plain, plain_multipliers
from feldspar.huggingface.weights import (
    finish_model_folder,
    read_weights,
    require_finite,
    require_names,
    write_weights,
)
from feldspar.model.rows import model_shapes
from feldspar.recipe.sections.model import ModelSettings, NoScaling, PositionScaling
from feldspar.tokens.tokenizer.text_tokenizer import TOKENIZER_FILE, copy_tokenizer

CONFIGURATION_NAME = "config.json"
SETTINGS_NAME = "model.json"
SCALING_NAME = "position_scaling.json"
"""A file beside the settings, which is there if positions are scaled."""


@dataclass(frozen=True)
class ImportedModel:
    """A plain model: settings, weights under our names, and where its tokenizer lies, if any."""

    settings: ModelSettings
    state: dict[str, Tensor]
    tokenizer_folder: Path | None
    scaling: PositionScaling
    """The scaling of its positions."""
    parametrization: Literal["sp"] = "sp"


def import_model(folder: Path) -> ImportedModel:
    """Read a folder of a known architecture, or one that ``write_imported`` wrote.

    A release is compared with its manifest first: RunError names a file that differs. Multipliers
    that the configuration declares are folded into the weights. Raises UserError for
    another architecture (naming the known ones), for values of the configuration that we would
    compute differently, for multipliers that are not all declared, and for pickled weights.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder")
    if (finished := open_if_artifact(folder)) is not None:
        finished.verify()
    tokenizer_folder = folder if (folder / TOKENIZER_FILE).is_file() else None
    own, path = folder / SETTINGS_NAME, folder / CONFIGURATION_NAME
    if own.is_file():
        with _described_by(own):
            settings = ModelSettings.model_validate_json(own.read_text(encoding="utf-8"))
        state, forward = read_weights(folder), plain_multipliers(settings)
    else:
        configuration = read_json(path)
        with _described_by(path):
            adapter = of_model_type(configuration.get("model_type"))
            settings = adapter.from_configuration(configuration)
            forward = declared_multipliers(configuration, settings)
        if finished is None and "feldspar_version" in configuration:
            say(f"{folder} holds no {MANIFEST_NAME}: its files are not compared with checksums")
        with _located(folder):
            state = adapter.from_hf(read_weights(folder), settings)
    shapes = {row.name: row.shape for row in model_shapes(settings).rows}
    with _located(folder):
        require_names(state, shapes)
        require_finite(state)
    ordered = {name: state[name].contiguous() for name in shapes}
    if not is_plain(settings, forward):
        folded = fold(ordered, settings, forward)
        ordered, settings = folded.state, folded.settings
    return ImportedModel(settings, ordered, tokenizer_folder, imported_scaling(folder))


def imported_scaling(folder: Path) -> PositionScaling:
    """Return the scaling of positions of the model in ``folder``; its weights are not read.

    Raises UserError for a scaling that we do not compute.
    """
    own, path = folder / SCALING_NAME, folder / CONFIGURATION_NAME
    if own.is_file():
        with _described_by(own):
            text = own.read_text(encoding="utf-8")
            return TypeAdapter[PositionScaling](PositionScaling).validate_json(text)
    if (folder / SETTINGS_NAME).is_file():
        return NoScaling()
    configuration = read_json(path)
    with _described_by(path):
        return of_model_type(configuration.get("model_type")).scaling_of(configuration)


@contextmanager
def _described_by(path: Path) -> Generator[None]:
    """Name ``path`` in errors of the block about values that come from it."""
    try:
        with _located(path):
            yield
    except KeyError as error:
        raise UserError(f"{path} lacks {error}") from error
    except ValidationError as error:
        raise UserError(f"{path} does not describe a model that we know: {error}") from error
    except (TypeError, AttributeError, ValueError, OverflowError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} holds a value of a wrong type: {error}") from error


@contextmanager
def _located(place: Path) -> Generator[None]:
    """Give errors of the block that name no place this place."""
    try:
        yield
    except UserError as error:
        error.where = error.where or str(place)
        raise


def write_imported(model: ImportedModel, out: Path, overwrite: bool = False) -> None:
    """Write a model under our own names: weights, ``model.json`` and the tokenizer's files."""
    with new_folder(out, overwrite) as folder:
        write_weights(folder, model.state)
        write_atomically(folder / SETTINGS_NAME, model.settings.model_dump_json(indent=2) + "\n")
        if not isinstance(model.scaling, NoScaling):
            write_atomically(folder / SCALING_NAME, model.scaling.model_dump_json(indent=2) + "\n")
        if model.tokenizer_folder is not None:
            copy_tokenizer(model.tokenizer_folder, folder)
        finish_model_folder(folder)
