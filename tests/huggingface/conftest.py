"""Small decoders with random weights, a tokenizer folder, folders without network."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from feldspar.huggingface.adapter import NO_SCALING, STANDARD, ModelDescription
from feldspar.huggingface.export_folder import export_model
from feldspar.huggingface.register import register_with_transformers
from feldspar.model.decoder import Decoder
from feldspar.parametrization.application import set_forward_multipliers
from feldspar.parametrization.tables import ForwardMultipliers
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.parametrization import ParametrizationSettings
from feldspar.recipe.sections.position_scaling import PositionScaling

GPT2 = {
    "n_layers": 2,
    "d_model": 16,
    "n_heads": 4,
    "d_ff": 24,
    "vocab_size": 48,
    "max_sequence_length": 64,
}
LLAMA = GPT2 | {"positions": "rotary", "norm": "rms", "feed_forward": "swiglu", "bias": False}
BTLM = GPT2 | {"positions": "alibi", "feed_forward": "swiglu", "n_heads": 3, "d_model": 24}
CRYSTAL = GPT2 | {
    "positions": {"type": "rotary", "fraction": 0.5, "interleaved": True},
    "feed_forward": "swiglu",
}
MUP = ParametrizationSettings(
    type="completep",
    base_d_model=7,
    base_d_ff=11.0,
    base_n_layers=1,
    learning_rate=1.0,
    embedding_multiplier=3.1,
    output_multiplier=1.1,
    attention_multiplier=1.7,
)
"""A parametrization whose four multipliers differ from those of a plain model."""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def registered() -> None:
    """Load exported folders with the installed class; test_remote.py loads their own copies."""
    register_with_transformers()


@pytest.fixture
def make_decoder() -> Callable[..., Decoder]:
    def make(
        shape: dict[str, Any],
        forward: ForwardMultipliers | ParametrizationSettings | None = None,
        dtype: torch.dtype = torch.float32,
        **changes: Any,
    ) -> Decoder:
        decoder = Decoder(ModelSettings.model_validate(shape | changes)).to(dtype).eval()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in decoder.named_parameters():
                values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                mean = 1.0 if name.endswith("norm.weight") else 0.0
                parameter.copy_(mean + 0.3 * values)
        forward = forward or STANDARD
        if isinstance(forward, ParametrizationSettings):
            forward = ModelDescription(decoder.settings, forward).forward
        set_forward_multipliers(decoder, forward)
        return decoder

    return make


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(48, (2, 21), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def tokenizer_folder(tmp_path: Path) -> Path:
    """Forty-five words and an end-of-text token."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    vocabulary = {"<|endoftext|>": 0} | {f"word{index}": index for index in range(1, 46)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    configuration = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(configuration))
    return folder


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., Path]:
    def write(
        decoder: Decoder,
        parametrization: ParametrizationSettings | None = None,
        scaling: PositionScaling | None = None,
        **options: Any,
    ) -> Path:
        out = tmp_path / "exported"
        export_model(
            dict(decoder.named_parameters()),
            ModelDescription(decoder.settings, parametrization or STANDARD, scaling or NO_SCALING),
            options.pop("tokenizer_folder", None),
            out,
            **options,
        )
        return out

    return write
