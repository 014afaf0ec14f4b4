"""Read a Hugging Face folder or a GGUF file as a description and weights of ours; no code runs."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from feldspar.core.artifact import open_if_artifact
from feldspar.core.errors import UserError
from feldspar.core.files import new_folder
from feldspar.core.json_files import read_json, write_json
from feldspar.core.manifest import MANIFEST_NAME
from feldspar.core.progress import say
from feldspar.huggingface.adapter import ModelDescription
from feldspar.huggingface.architectures import name_of, of_configuration
from feldspar.huggingface.converted_tensors import OurTensors
from feldspar.huggingface.gguf.opened_gguf import OpenedGguf
from feldspar.huggingface.tensor_rules import TensorRule
from feldspar.huggingface.weights import FolderTensors, finish_model_folder, write_weights
from feldspar.model.decoder import Decoder
from feldspar.model.rows import model_shapes
from feldspar.parametrization.application import set_forward_multipliers
from feldspar.recipe.recorded import CHECKPOINTS_NAME
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.parametrization import ParametrizationSettings
from feldspar.recipe.sections.position_scaling import PositionScaling
from feldspar.tokens.tokenizer.text_tokenizer import (
    TOKENIZER_FILE,
    copy_tokenizer,
    require_readable,
)

CONFIGURATION_NAME = "config.json"
SETTINGS_NAME = "model.json"
EMBEDDING = "token_embedding.weight"
MAKING_KEYS = ("folded_from", "sparsity")
"""Keys of a configuration by which an export records how the weights came to be."""
VERSION_KEY = "feldspar_version"
"""Key that only the configuration of an export has."""
HEADS = ("lm_head.weight", "embed_out.weight")
"""Names of a class's head. A folder may hold a tied one although the model does not need it."""


@dataclass(frozen=True)
class Origin:
    """The model that an imported folder was made from."""

    architecture: str
    """The name of its adapter; an export uses it again unless another is asked for."""
    place: str
    """The folder, file or package."""


@dataclass(frozen=True)
class ImportedModel:
    """A foreign model: its description, its weights under our names, and where they come from."""

    description: ModelDescription
    state: Mapping[str, Tensor]
    """The weights, in the order of the decoder. Those of a folder are read when asked for."""
    tokenizer_folder: Path | None
    """The folder of the tokenizer, if there is one."""
    origin: Origin
    file: OpenedGguf | None = None
    """The GGUF file that the model is read from; the tokenizer's folder lasts as long as it."""
    making: Mapping[str, Any] = field(default_factory=dict)
    """Records of an earlier export: multipliers that were folded, and masks."""

    @property
    def settings(self) -> ModelSettings:
        """The settings of the decoder."""
        return self.description.settings

    @property
    def scaling(self) -> PositionScaling:
        """The scaling of positions."""
        return self.description.scaling

    @torch.no_grad()
    def decoder(self) -> Decoder:
        """Return the decoder in float32, with its multipliers; tensors are read one at a time."""
        decoder = Decoder(self.settings)
        for name, parameter in decoder.named_parameters():
            parameter.copy_(self.state[name])
        set_forward_multipliers(decoder, self.description.forward)
        decoder.scale_positions(self.scaling)
        return decoder


def import_model(source: Path, place: str | None = None) -> ImportedModel:
    """Read a GGUF file, a folder of a known architecture, or one that ``write_imported`` wrote.

    ``place`` is recorded as its origin, by default its path.

    A folder with a manifest is compared with it first: RunError names a file that differs. Names,
    shapes and types of all tensors are checked before a tensor is read. Raises UserError for
    another architecture (naming the known ones), for values of the configuration that we would
    compute differently, for multipliers that are not all declared, for tensors that do not fit the
    configuration, and for pickled weights.
    """
    if source.is_file():
        return _import_gguf(source, place or str(source))
    if not source.is_dir():
        raise UserError(f"{source} is no folder")
    return _import_folder(source, place or str(source))


def _import_folder(folder: Path, place: str) -> ImportedModel:
    if (finished := open_if_artifact(folder)) is not None:
        # A release may hold checkpoints, which are large and not read here.
        skipped = set(finished.names(CHECKPOINTS_NAME))
        finished.files([name for name in finished.names() if name not in skipped])
    making: dict[str, Any] = {}
    if (folder / SETTINGS_NAME).is_file():
        description, origin = _read_settings(folder / SETTINGS_NAME)
        names = [row.name for row in model_shapes(description.settings).rows]
        rules, prefix, ignored = tuple(TensorRule(name, (name,)) for name in names), "", ()
        always_ties = True
    else:
        configuration = read_json(folder / CONFIGURATION_NAME)
        with _described_by(folder / CONFIGURATION_NAME):
            adapter = of_configuration(configuration)
            description = adapter.from_configuration(configuration)
            rules = adapter.tensor_rules(description.settings)
        if VERSION_KEY in configuration:
            found = {key: configuration.get(key) for key in MAKING_KEYS}
            making = {key: value for key, value in found.items() if value is not None}
            if finished is None:
                say(f"{folder} holds no {MANIFEST_NAME}: its files are not compared with checksums")
        origin = Origin(name_of(adapter), place)
        prefix, ignored, always_ties = adapter.prefix, adapter.ignored, adapter.always_ties
    shapes = {row.name: row.shape for row in model_shapes(description.settings).rows}
    with _located(folder):
        theirs = FolderTensors(folder)
        state = OurTensors(theirs, rules, shapes, prefix, ignored)
        if description.settings.tied_embeddings and not always_ties:
            _require_tied(theirs, state)
    tokenizer_folder = folder if (folder / TOKENIZER_FILE).is_file() else None
    return ImportedModel(description, state, tokenizer_folder, origin, making=making)


def _require_tied(theirs: FolderTensors, state: OurTensors) -> None:
    """Raise UserError where a folder holds a head that is not the copy of a tied embedding."""
    for name in HEADS:
        if name in theirs:
            head, embedding = theirs[name], state[EMBEDDING]
            if head.shape != embedding.shape or not torch.equal(head.to(embedding), embedding):
                raise UserError(
                    f"config.json: tie_word_embeddings is true, but {name} is another matrix than "
                    "the embedding",
                    do="set tie_word_embeddings to false, so that the model has both",
                )


def _import_gguf(path: Path, place: str) -> ImportedModel:
    opened = OpenedGguf.open(path)
    with _described_by(path):
        configuration = opened.configuration
        adapter = of_configuration(configuration)
        description = adapter.from_configuration(configuration)
        rules = adapter.tensor_rules(description.settings)
    shapes = {row.name: row.shape for row in model_shapes(description.settings).rows}
    with _located(path):
        names = [name for rule in rules for name in rule.theirs]
        tensors = opened.tensors(names, description.settings.n_layers)
        state = OurTensors(tensors, rules, shapes, adapter.prefix, adapter.ignored)
        tokenizer_folder = opened.tokenizer_folder
    return ImportedModel(
        description, state, tokenizer_folder, Origin(name_of(adapter), place), opened
    )


def read_description(folder: Path) -> ModelDescription:
    """Return the description of the model in ``folder``; its weights are not read.

    Raises UserError as ``import_model``.
    """
    if (folder / SETTINGS_NAME).is_file():
        return _read_settings(folder / SETTINGS_NAME)[0]
    path = folder / CONFIGURATION_NAME
    configuration = read_json(path)
    with _described_by(path):
        return of_configuration(configuration).from_configuration(configuration)


def write_imported(model: ImportedModel, out: Path, overwrite: bool = False) -> None:
    """Write a model under our own names: weights, ``model.json`` and the tokenizer's files.

    The tensors are written one after the other, each in its own type.
    """
    with new_folder(out, overwrite) as folder:
        write_imported_into(model, folder)


def write_imported_into(model: ImportedModel, folder: Path) -> None:
    """Write a model into a new ``folder``, which may hold reports on it already, and finish it."""
    if model.tokenizer_folder is not None:
        require_readable(model.tokenizer_folder)
    write_weights(folder, model.state)
    write_json(folder / SETTINGS_NAME, model_record(model))
    if model.tokenizer_folder is not None:
        copy_tokenizer(model.tokenizer_folder, folder)
    finish_model_folder(folder)


def model_record(model: ImportedModel) -> dict[str, Any]:
    """Return the content of ``model.json``."""
    description = model.description
    return {
        "model": description.settings.model_dump(mode="json"),
        "parametrization": description.parametrization.model_dump(
            mode="json", exclude_defaults=True
        ),
        "position_scaling": description.scaling.model_dump(mode="json"),
        "source": {"architecture": model.origin.architecture, "from": model.origin.place},
    }


def _read_settings(path: Path) -> tuple[ModelDescription, Origin]:
    record = read_json(path)
    if "n_layers" in record and "model" not in record:
        raise UserError(
            f"{path} has the form of an earlier version, which did not say the parametrization",
            do="import the model again",
        )
    with _described_by(path):
        description = ModelDescription(
            ModelSettings.model_validate(record["model"]),
            ParametrizationSettings.model_validate(record["parametrization"]),
            TypeAdapter[PositionScaling](PositionScaling).validate_python(
                record["position_scaling"]
            ),
        )
        source = record["source"]
        return description, Origin(source["architecture"], source["from"])


@contextmanager
def _described_by(path: Path) -> Generator[None]:
    """Name ``path`` in errors of the block about values that come from it."""
    try:
        with _located(path):
            yield
    except KeyError as error:
        raise UserError(f"{path} lacks {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ")
        raise UserError(
            f"{path} does not describe a model that we know: {key}{': ' if key else ''}{reason}",
            found=first["input"] if key else None,
        ) from error
    except (TypeError, AttributeError, ValueError, ArithmeticError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} holds a value that is not possible: {error}") from error


@contextmanager
def _located(place: Path) -> Generator[None]:
    """Give errors of the block that name no place this place."""
    try:
        yield
    except UserError as error:
        error.where = error.where or str(place)
        raise
