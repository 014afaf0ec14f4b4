"""A Hugging Face folder as a model to measure: GPT-2, Llama, or what ``export`` wrote."""

from pathlib import Path

import torch

from feldspar.core.errors import UserError
from feldspar.evaluate.text_model import TextModel
from feldspar.huggingface.import_folder import import_model
from feldspar.model.decoder import Decoder
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer


def open_exported(folder: Path, device: torch.device | None = None) -> TextModel:
    """Return the model and tokenizer in ``folder``; every row of its embedding counts as a token.

    Raises UserError for a folder that holds no model of a known kind, or no tokenizer.
    """
    imported = import_model(folder)
    if imported.tokenizer_folder is None:
        raise UserError(f"{folder} holds no tokenizer.json, so it cannot read text")
    decoder = Decoder(imported.settings)
    decoder.load_state_dict(imported.state)
    decoder.scale_positions(imported.scaling)
    tokenizer = TextTokenizer.load(imported.tokenizer_folder)
    return TextModel(decoder.to(device or "cpu").eval(), tokenizer)
