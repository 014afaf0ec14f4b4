"""A small decoder of any shape with random values in every parameter."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from feldspar.model.decoder import Decoder
from feldspar.recipe.sections.model import ModelSettings

SMALL = {
    "n_layers": 2,
    "d_model": 16,
    "n_heads": 4,
    "d_ff": 24,
    "vocab_size": 40,
    "max_sequence_length": 32,
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def make_settings() -> Callable[..., ModelSettings]:
    return lambda **changes: ModelSettings.model_validate(SMALL | changes)


@pytest.fixture
def make_decoder(make_settings: Callable[..., ModelSettings]) -> Callable[..., Decoder]:
    def make(
        seed: int = 0, dtype: torch.dtype = torch.float32, std: float = 0.3, **changes: Any
    ) -> Decoder:
        decoder = Decoder(make_settings(**changes)).to(dtype)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in decoder.named_parameters():
                values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                mean = 1.0 if name.endswith("norm.weight") else 0.0
                parameter.copy_(mean + std * values)
        return decoder

    return make


@pytest.fixture
def random_tokens() -> Callable[..., torch.Tensor]:
    def draw(*shape: int, vocab_size: int = 40, seed: int = 1) -> torch.Tensor:
        return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(seed))

    return draw
