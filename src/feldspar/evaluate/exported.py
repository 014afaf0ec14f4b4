"""Open a Hugging Face folder for evaluation: GPT-2, Llama, or one that ``export`` wrote."""

from pathlib import Path

import torch

from feldspar.core.artifact import open_if_artifact
from feldspar.core.errors import UserError
from feldspar.core.progress import tokens_of_plan
from feldspar.evaluate.text_model import TextModel
from feldspar.huggingface.import_folder import import_model
from feldspar.model.decoder import Decoder
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer


def open_exported(folder: Path, device: torch.device | None = None) -> TextModel:
    """Open the model and the tokenizer in ``folder``; every row of its embedding counts as a token.

    Raises UserError for a folder without a model of a known kind, or without a tokenizer.
    """
    imported = import_model(folder)
    decoder = imported.decoder().to(device or "cpu").eval()
    model = read_text_model(decoder, imported.tokenizer_folder)
    if model is None:
        raise UserError(f"{folder} has no tokenizer.json, so it cannot encode text")
    return model


def read_text_model(decoder: Decoder, tokenizer_folder: Path | None) -> TextModel | None:
    """Return the decoder with the tokenizer in a folder; None where there is none.

    Every row of the embedding counts as a token.
    """
    if tokenizer_folder is None:
        return None
    return TextModel(decoder, TextTokenizer.load(tokenizer_folder))


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
