"""Export the model of a run, or an imported one, for ``transformers`` or for llama.cpp."""

from pathlib import Path

import torch

from feldspar.core.artifact import require_writable
from feldspar.core.errors import UserError
from feldspar.huggingface.adapter import ModelDescription
from feldspar.huggingface.export_folder import export_imported, export_model
from feldspar.huggingface.gguf.export_gguf import LLAMA_CPP_CLASSES, export_gguf
from feldspar.huggingface.gguf.written_gguf import TYPES as GGUF_TYPES
from feldspar.huggingface.gguf.written_gguf import require_writable_gguf
from feldspar.huggingface.import_folder import import_model
from feldspar.recipe.sections.model import ModelSettings
from feldspar.train.load import LoadedRun, load_run

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TYPES_BY_FORMAT = {"hf": TYPES, "gguf": GGUF_TYPES, "peft": TYPES}
KINDS = {"hf": "model", "peft": "adapter"}
"""Kinds of the folders that the formats write."""


def export_run(
    run: Path,
    to: Path,
    architecture: str = "auto",
    checkpoint: str = "last",
    dtype: str | None = None,
    overwrite: bool = False,
    file_format: str = "hf",
) -> ModelSettings:
    """Export the run in ``run`` to ``to``; return the settings of the written model.

    ``to`` is a folder for the format ``hf`` and a file for ``gguf``. ``architecture`` is the name
    of an adapter, or auto; ``dtype`` None means float32. Raises UserError where ``to`` exists
    already unless ``overwrite``, for a model that the architecture or the format cannot express,
    and as ``load_run``.
    """
    require_target(to, dtype, overwrite, file_format)
    loaded = load_run(run, checkpoint)
    if file_format == "hf":
        return export_loaded(loaded, to, architecture, dtype or "float32", overwrite)
    state = dict(loaded.decoder.named_parameters())
    return export_gguf(state, _described(loaded), loaded.tokenizer_folder, to, architecture, dtype)


def export_foreign(
    source: Path,
    to: Path,
    architecture: str = "auto",
    dtype: str | None = None,
    overwrite: bool = False,
    file_format: str = "hf",
) -> ModelSettings:
    """Export an imported folder, a Hugging Face folder or a GGUF file.

    ``architecture`` auto is that of its source, and ``dtype`` None keeps the type of each tensor.
    Raises UserError as ``export_run``.
    """
    require_target(to, dtype, overwrite, file_format)
    model = import_model(source)
    if file_format == "hf":
        chosen = None if dtype is None else TYPES[dtype]
        return export_imported(model, to, architecture, chosen, overwrite)
    if architecture == "auto" and model.origin.architecture in LLAMA_CPP_CLASSES:
        architecture = model.origin.architecture
    return export_gguf(
        model.state,
        model.description,
        model.tokenizer_folder,
        to,
        architecture,
        dtype,
        n_real_vocab=model.settings.vocab_size,
    )


def require_target(to: Path, dtype: str | None, overwrite: bool, file_format: str) -> None:
    """Raise UserError for a format or a type of weights that no export has, or a place in use."""
    if file_format not in TYPES_BY_FORMAT:
        raise UserError(f"--format {file_format} is not known", allowed=TYPES_BY_FORMAT)
    types = TYPES_BY_FORMAT[file_format]
    if dtype is not None and dtype not in types:
        raise UserError(f"--dtype {dtype} is not known", allowed=types)
    if file_format == "gguf":
        require_writable_gguf(to, overwrite)
    else:
        require_writable(to, KINDS[file_format], overwrite)


def export_loaded(
    loaded: LoadedRun,
    to: Path,
    architecture: str = "auto",
    dtype: str = "float32",
    overwrite: bool = False,
) -> ModelSettings:
    """Export a run that was read already as a Hugging Face folder."""
    return export_model(
        dict(loaded.decoder.named_parameters()),
        _described(loaded),
        loaded.tokenizer_folder,
        to,
        architecture,
        TYPES[dtype],
        overwrite=overwrite,
        masks=loaded.masks,
        soft_prompt=loaded.soft_prompt,
        chat_template=loaded.chat_template,
    )


def _described(run: LoadedRun) -> ModelDescription:
    decoder = run.decoder
    return ModelDescription(decoder.settings, run.recipe.parametrization, decoder.position_scaling)
