"""Export the model of a run as a folder that ``transformers`` loads."""

from pathlib import Path

import torch

from feldspar.core.artifact import require_writable
from feldspar.core.errors import UserError
from feldspar.huggingface.adapter import ModelDescription
from feldspar.huggingface.export_folder import export_imported, export_model
from feldspar.huggingface.import_folder import import_model
from feldspar.recipe.sections.model import ModelSettings
from feldspar.train.load import LoadedRun, load_run

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def export_run(
    run: Path,
    to: Path,
    architecture: str = "auto",
    checkpoint: str = "last",
    dtype: str = "float32",
    overwrite: bool = False,
) -> ModelSettings:
    """Export the run in ``run`` into the folder ``to``; return the settings of the written model.

    ``architecture`` is auto, gpt2, llama or feldspar. Raises UserError where ``to`` exists already
    unless ``overwrite``, for a model that the architecture cannot express, and as ``load_run``.
    """
    require_type(dtype)
    require_writable(to, "model", overwrite)
    return export_loaded(load_run(run, checkpoint), to, architecture, dtype, overwrite)


def export_foreign(
    folder: Path,
    to: Path,
    architecture: str = "auto",
    dtype: str | None = None,
    overwrite: bool = False,
) -> ModelSettings:
    """Export an imported folder, or a Hugging Face folder, as ``export_imported`` does."""
    if dtype is not None:
        require_type(dtype)
    require_writable(to, "model", overwrite)
    chosen = None if dtype is None else TYPES[dtype]
    return export_imported(import_model(folder), to, architecture, chosen, overwrite)


def require_type(dtype: str) -> None:
    """Raise UserError for a type of weights that no export has."""
    if dtype not in TYPES:
        raise UserError(f"--dtype {dtype} is not known", allowed=TYPES)


def export_loaded(
    loaded: LoadedRun,
    to: Path,
    architecture: str = "auto",
    dtype: str = "float32",
    overwrite: bool = False,
) -> ModelSettings:
    """Export a run that was read already, as ``export_run`` does."""
    decoder = loaded.decoder
    scaling = decoder.position_scaling
    return export_model(
        dict(decoder.named_parameters()),
        ModelDescription(decoder.settings, loaded.recipe.parametrization, scaling),
        loaded.tokenizer_folder,
        to,
        architecture,
        TYPES[dtype],
        overwrite=overwrite,
        masks=loaded.masks,
        soft_prompt=loaded.soft_prompt,
    )
