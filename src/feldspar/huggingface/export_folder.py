"""Express a decoder as a Hugging Face class, and write it as a folder that transformers loads."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from feldspar import __version__
from feldspar.core.errors import UserError
from feldspar.core.files import new_folder
from feldspar.core.json_files import write_json
from feldspar.core.progress import say
from feldspar.huggingface.adapter import Adapter, ModelDescription
from feldspar.huggingface.architectures import choose, first_fitting
from feldspar.huggingface.converted_tensors import TheirTensors
from feldspar.huggingface.import_folder import VERSION_KEY, ImportedModel
from feldspar.huggingface.multipliers import WithMultipliers, same_multipliers
from feldspar.huggingface.own import OwnAdapter, write_code
from feldspar.huggingface.weights import finish_model_folder, require_names, write_weights
from feldspar.model.layers import SOFT_PROMPT
from feldspar.model.rows import model_shapes
from feldspar.recipe.sections.model import ModelSettings, SoftPromptSettings
from feldspar.runtime.tensor_file import LazyTensors, TensorHeader, header_of, save_tensors
from feldspar.sparsity.masks import Masks
from feldspar.sparsity.saved import describe_masks
from feldspar.tokens.tokenizer.declaration import GENERATION_FILE, ID_KEYS
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

SOFT_PROMPT_FILE = "soft_prompt.safetensors"
VOCABULARY_PARTS = ("token_embedding.weight", "output.weight")


@dataclass(frozen=True)
class ExpressedModel:
    """A model in the form of a Hugging Face class."""

    adapter: Adapter
    description: ModelDescription
    """The model with the multipliers that the class has, and without padding of the vocabulary."""
    tensors: TheirTensors
    soft_prompt: Tensor | None
    """The vectors of the soft prompt, which no class has a place for."""

    @property
    def configuration(self) -> dict[str, Any]:
        """The part of ``config.json`` that describes the model."""
        return self.adapter.to_configuration(self.description)


def express(
    state: Mapping[str, Tensor],
    description: ModelDescription,
    architecture: str,
    dtype: torch.dtype | None,
    n_real_vocab: int | None,
) -> ExpressedModel:
    """Return a model in the form of the class ``architecture``; lazy tensors are not read yet.

    ``dtype`` None keeps the type of each tensor. Rows of the vocabulary from ``n_real_vocab`` on
    are cut off. Raises UserError when the class cannot express the model.
    """
    length = header_of(state, SOFT_PROMPT).shape[0] if SOFT_PROMPT in state else 0
    shapes = model_shapes(description.settings, length)
    require_names(state, {row.name: row.shape for row in shapes.rows})
    adapter, exported = choose(architecture, _without_padding(description, n_real_vocab))
    ours = _FirstRows(state, exported.settings.vocab_size)
    converted = WithMultipliers(ours, exported.settings, description.forward, exported.forward)
    theirs = TheirTensors(converted, adapter.tensor_rules(exported.settings), dtype)
    return ExpressedModel(adapter, exported, theirs, converted[SOFT_PROMPT] if length else None)


def export_model(
    state: Mapping[str, Tensor],
    description: ModelDescription,
    tokenizer_folder: Path | None,
    out: Path,
    architecture: str = "auto",
    dtype: torch.dtype | None = torch.float32,
    n_real_vocab: int | None = None,
    overwrite: bool = False,
    masks: Masks | None = None,
    soft_prompt: SoftPromptSettings | None = None,
    chat_template: str | None = None,
    making: Mapping[str, Any] | None = None,
) -> ModelSettings:
    """Write weights, configuration and tokenizer; return the settings of the exported model.

    Multipliers that the class does not have are folded into the weights; the scaling of positions
    goes into the configuration. ``dtype`` None keeps the type of each tensor. Zeros stay zeros; the
    configuration only notes the ``masks`` that they come from (key ``sparsity``). Common classes
    have no place for a soft prompt: its vectors go into a file of their own, as input embeddings to
    stand among those of the tokens; the key ``soft_prompt`` names that file, their number and their
    place. Rows of the vocabulary from ``n_real_vocab`` on are padding and are cut off; by default
    these are the rows that the tokenizer lacks. ``chat_template`` replaces the tokenizer's.
    ``making`` are the records of an earlier export of the same weights, which stay. Lazy tensors
    are read one after the other. Raises UserError when the architecture cannot express the model,
    or when the tokenizer has more tokens than the model.
    """
    tokenizer = None if tokenizer_folder is None else TextTokenizer.load(tokenizer_folder)
    if tokenizer is not None and chat_template is not None:
        tokenizer = tokenizer.with_chat_template(chat_template)
    if n_real_vocab is None and tokenizer is not None:
        n_real_vocab = tokenizer.vocab_size
    model = express(state, description, architecture, dtype, n_real_vocab)
    adapter, exported, theirs = model.adapter, model.description, model.tensors
    written = dtype or theirs.header(next(iter(theirs))).dtype
    if adapter.biases_in_weight_type and written == torch.bfloat16:
        say(
            f"warning: {adapter.hf_class} computes ALiBi's biases in bfloat16, which has no room "
            "for the places of a long text; load it in float32 (torch_dtype=torch.float32)"
        )
    configuration = model.configuration | _record(description, exported, written)
    configuration |= making or {}
    if masks is not None and masks.tensors:
        configuration["sparsity"] = describe_masks(masks)
    vectors = model.soft_prompt
    if soft_prompt is not None and vectors is not None:
        configuration["soft_prompt"] = {
            "file": SOFT_PROMPT_FILE,
            "length": len(vectors),
            "place": soft_prompt.place,
        }
    generation = dict.fromkeys(ID_KEYS) if tokenizer is None else tokenizer.generation
    special = {name: generation[name] for name in ID_KEYS}
    with new_folder(out, overwrite) as folder:
        write_weights(folder, theirs)
        if "soft_prompt" in configuration and vectors is not None:
            table = {"soft_prompt": vectors.to(dtype or vectors.dtype)}
            save_tensors(table, folder / SOFT_PROMPT_FILE)
        write_json(folder / "config.json", configuration | special, ascii_only=True)
        if tokenizer is not None:
            tokenizer.save(folder)
        write_json(folder / GENERATION_FILE, generation, ascii_only=True)
        if isinstance(adapter, OwnAdapter):
            write_code(folder)
        finish_model_folder(folder)
    return exported.settings


def export_imported(
    model: ImportedModel,
    out: Path,
    architecture: str = "auto",
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> ModelSettings:
    """Write an imported model in its own architecture again, or in another; return its settings.

    For ``auto`` that is the architecture of the model's source, or the first that fits where the
    model has changed since. Without a ``dtype``, each tensor
    keeps its type, so that an unchanged model has the tensors of its source bit for bit. No row of
    the vocabulary is cut off. Raises UserError as ``export_model``.
    """
    return export_model(
        model.state,
        model.description,
        model.tokenizer_folder,
        out,
        _own_architecture(model) if architecture == "auto" else architecture,
        dtype,
        n_real_vocab=model.settings.vocab_size,
        overwrite=overwrite,
        making=model.making,
    )


def _own_architecture(model: ImportedModel) -> str:
    name = model.origin.architecture
    return first_fitting([name], model.description) or "auto"


def _record(
    given: ModelDescription, exported: ModelDescription, dtype: torch.dtype
) -> dict[str, Any]:
    """Return what the configuration says of feldspar and of the type of the weights."""
    source = None
    if not same_multipliers(given.forward, exported.forward):
        tied = given.settings.tied_embeddings
        source = {"multipliers": asdict(given.forward), "tied_embeddings": tied}
    return {
        "parametrization": exported.parametrization.type,
        "folded_from": source,
        VERSION_KEY: __version__,
        "dtype": str(dtype).removeprefix("torch."),
        "torch_dtype": str(dtype).removeprefix("torch."),
        "use_cache": True,
    }


def _without_padding(description: ModelDescription, n_real_vocab: int | None) -> ModelDescription:
    rows = description.settings.vocab_size
    if n_real_vocab is None or n_real_vocab == rows:
        return description
    if rows is not None and n_real_vocab > rows:
        raise UserError(
            f"the tokenizer has {n_real_vocab} tokens, the model only {rows}",
            do="export with the tokenizer that the model was trained with",
        )
    settings = description.settings.model_copy(update={"vocab_size": n_real_vocab})
    return replace(description, settings=settings)


class _FirstRows(LazyTensors):
    """Tensors of which those of the vocabulary are cut after ``n_rows``."""

    def __init__(self, state: Mapping[str, Tensor], n_rows: int | None) -> None:
        self._state, self._n_rows = state, n_rows

    def header(self, name: str) -> TensorHeader:
        """Return shape and type of a tensor."""
        found = header_of(self._state, name)
        if name not in VOCABULARY_PARTS or self._n_rows is None:
            return found
        return TensorHeader((self._n_rows, *found.shape[1:]), found.dtype)

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor without its padding."""
        tensor = self._state[name].detach()
        return tensor[: self._n_rows] if name in VOCABULARY_PARTS else tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)
