"""A tokenizer that is trained here, and random decoders whose likeliest token stands out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from feldspar.huggingface.adapter import ModelDescription
from feldspar.model.decoder import Decoder
from feldspar.parametrization.application import set_forward_multipliers
from feldspar.recipe.sections.model import ModelSettings
from feldspar.tokens.tokenizer.bpe import train_bpe
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from tests.made_text import documents

N_TOKENS = 320
END = "<|endoftext|>"
GPT2 = {
    "n_layers": 2,
    "d_model": 64,
    "n_heads": 4,
    "d_ff": 96,
    "vocab_size": N_TOKENS,
    "max_sequence_length": 128,
}
LLAMA = GPT2 | {
    "n_kv_heads": 2,
    "positions": "rotary",
    "norm": "rms",
    "feed_forward": "swiglu",
    "bias": False,
}


@pytest.fixture(scope="session")
def trained_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a byte-level BPE of GPT-2's pattern."""
    folder = tmp_path_factory.mktemp("tokenizer")
    train_bpe(documents(40, 200, 1000), N_TOKENS, (END,)).save(folder)
    return folder


@pytest.fixture
def wide_decoder(trained_tokenizer: Path) -> Callable[..., Decoder]:
    """Random decoders with logits of a wide range.

    The token that ends a text never wins, and no token that is part of a character: llama.cpp tells
    no log-probabilities of texts that end so.
    """
    tokenizer = TextTokenizer.load(trained_tokenizer)
    unwanted = [0, *(one for one in range(N_TOKENS) if "\ufffd" in tokenizer.decode([one]))]

    def make(shape: dict[str, Any] | ModelDescription, **changes: Any) -> Decoder:
        if isinstance(shape, ModelDescription):
            decoder = Decoder(shape.settings).eval()
            set_forward_multipliers(decoder, shape.forward)
            decoder.scale_positions(shape.scaling)
        else:
            decoder = Decoder(ModelSettings.model_validate(shape | changes)).eval()
        offset = decoder.settings.norm.unit_offset
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in decoder.named_parameters():
                values = torch.randn(parameter.shape, generator=generator)
                if parameter.dim() == 2:
                    is_table = "embedding" in name or name == "output.weight"
                    parameter.copy_(values * (0.5 if is_table else parameter.shape[1] ** -0.5))
                else:
                    is_gain = name.endswith("norm.weight") and not offset
                    parameter.copy_(0.1 * values + (1.0 if is_gain else 0.0))
            for name in ("token_embedding.weight", "output.weight"):
                if name in dict(decoder.named_parameters()):
                    decoder.get_parameter(name)[unwanted] = 0.0
        return decoder

    return make


def described(decoder: Decoder) -> ModelDescription:
    """Return the description of a plain decoder."""
    return ModelDescription(decoder.settings, scaling=decoder.position_scaling)


def weights(decoder: Decoder) -> dict[str, torch.Tensor]:
    """Return the parameters by name."""
    return {name: tensor.detach() for name, tensor in decoder.named_parameters()}
