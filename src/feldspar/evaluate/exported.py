"""Open a Hugging Face folder for evaluation: GPT-2, Llama, or one that ``export`` wrote."""

from pathlib import Path

import torch

from feldspar.core.artifact import open_if_artifact
from feldspar.core.errors import UserError
from feldspar.core.progress import tokens_of_plan
from feldspar.evaluate.text_model import TextModel
from feldspar.huggingface.import_folder import import_model
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer


def open_exported(folder: Path, device: torch.device | None = None) -> TextModel:
    """Open the model and the tokenizer in ``folder``; every row of its embedding counts as a token.

    Raises UserError for a folder without a model of a known kind, or without a tokenizer.
    """
    imported = import_model(folder)
    if imported.tokenizer_folder is None:
        raise UserError(f"{folder} has no tokenizer.json, so it cannot encode text")
    tokenizer = TextTokenizer.load(imported.tokenizer_folder)
    return TextModel(imported.decoder().to(device or "cpu").eval(), tokenizer)


def unfinished_run(folder: Path) -> str | None:
    """Return the progress of the run that a folder was released from.

    None where the run was at its end, and for a folder that is no release.
    """
    if (finished := open_if_artifact(folder)) is None:
        return None
    counts = finished.manifest.counts
    tokens, planned = counts.get("tokens"), counts.get("planned_tokens")
    if not isinstance(tokens, int) or not isinstance(planned, int) or tokens >= planned:
        return None
    return tokens_of_plan(tokens, planned)
