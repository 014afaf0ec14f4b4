"""Export a decoder with its tokenizer as a GGUF file that llama.cpp runs."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from feldspar.core.errors import UserError
from feldspar.huggingface.adapter import ModelDescription
from feldspar.huggingface.architectures import first_fitting
from feldspar.huggingface.export_class import export_class
from feldspar.huggingface.export_folder import express
from feldspar.huggingface.gguf.known_architectures import GGUF_ARCHITECTURES
from feldspar.huggingface.gguf.written_gguf import write_gguf
from feldspar.recipe.sections.model import ModelSettings
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

LLAMA_CPP_CLASSES = tuple(known.model_type for known in GGUF_ARCHITECTURES.values())
"""Names of the adapters whose classes llama.cpp knows; an export takes the first that fits."""


def export_gguf(
    state: Mapping[str, Tensor],
    description: ModelDescription,
    tokenizer_folder: Path | None,
    out: Path,
    architecture: str = "auto",
    dtype: str | None = None,
    n_real_vocab: int | None = None,
) -> ModelSettings:
    """Write a model as the file ``out``; return the settings of the written model.

    Multipliers are folded into the weights as for a Hugging Face folder. ``dtype`` is the type of
    the matrices (see ``write_gguf``). Rows of the vocabulary from ``n_real_vocab`` on are cut off;
    by default these are the rows that the tokenizer lacks. Raises UserError for a model or a
    tokenizer that llama.cpp cannot express.
    """
    tokenizer = None if tokenizer_folder is None else TextTokenizer.load(tokenizer_folder)
    if n_real_vocab is None and tokenizer is not None:
        n_real_vocab = tokenizer.vocab_size
    chosen = _class_of(architecture, description)
    model = express(state, description, chosen, None, n_real_vocab)
    if model.soft_prompt is not None:
        raise UserError(
            "llama.cpp has no place for a soft prompt",
            do="export with --format hf, which writes its vectors into a file of their own",
        )
    with tempfile.TemporaryDirectory() as name:
        if tokenizer is not None:
            tokenizer.save(Path(name))
        folder = None if tokenizer is None else Path(name)
        write_gguf(out, model.configuration, model.tensors, folder, dtype, out.stem)
    return model.description.settings


def _class_of(architecture: str, description: ModelDescription) -> str:
    """Return the class to export: the one that was named, or the first that llama.cpp knows."""
    if architecture != "auto":
        return architecture
    found = first_fitting(LLAMA_CPP_CLASSES, description)
    if found is None:
        nearest = export_class(description)
        raise UserError(
            "llama.cpp has no class that can express this model",
            found=nearest.description,
            do="export with --format hf",
        )
    return found
