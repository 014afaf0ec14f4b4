"""The class that a model is exported as: a plan states the one that an export chooses."""

import pytest

from feldspar.huggingface.adapter import ModelDescription
from feldspar.huggingface.architectures import ARCHITECTURES, choose
from feldspar.huggingface.export_class import export_class
from feldspar.huggingface.own import OWN
from feldspar.recipe.sections.block_parts import NormSettings
from feldspar.recipe.sections.model import ModelSettings, RotaryPositions
from feldspar.recipe.sections.position_scaling import LinearScaling, NoScaling, PositionScaling

SHAPE = {
    "n_layers": 1,
    "d_model": 8,
    "n_heads": 2,
    "d_ff": 8,
    "vocab_size": 16,
    "max_sequence_length": 8,
}
LLAMA_LIKE = {"positions": "rotary", "feed_forward": "swiglu"}
GPT2, LLAMA = "GPT2LMHeadModel", "LlamaForCausalLM"
WINDOW = {"sliding_window": {"tokens": 4}}
GROWING = LinearScaling(type="linear", train_length=8)

CLASSES = [
    ({}, NoScaling(), GPT2),
    (LLAMA_LIKE, NoScaling(), LLAMA),
    (LLAMA_LIKE | {"bias": True}, NoScaling(), LLAMA),
    (LLAMA_LIKE | {"dropout": 0.1}, NoScaling(), LLAMA),
    (LLAMA_LIKE | {"feed_forward": "geglu", "norm": "rms", "bias": False}, NoScaling(), LLAMA),
    (LLAMA_LIKE | WINDOW, NoScaling(), "MinistralForCausalLM"),
    (LLAMA_LIKE | {"bias": {"query_key_value": True}}, NoScaling(), "Qwen2ForCausalLM"),
    (LLAMA_LIKE | {"query_key_norm": "head"}, NoScaling(), "Qwen3ForCausalLM"),
    (
        LLAMA_LIKE | {"positions": {"type": "rotary", "layers_without": [0]}},
        NoScaling(),
        "SmolLM3ForCausalLM",
    ),
    ({"positions": "rotary"}, NoScaling(), "GPTNeoXForCausalLM"),
    ({"positions": "rotary", **WINDOW}, NoScaling(), "Starcoder2ForCausalLM"),
    (LLAMA_LIKE | {"norm": "layer"}, NoScaling(), OWN),
    (LLAMA_LIKE, GROWING, OWN),
    (LLAMA_LIKE | {"reversible": True}, NoScaling(), OWN),
]


@pytest.mark.parametrize(("changes", "scaling", "name"), CLASSES)
def test_the_first_class_that_fits_is_chosen(
    changes: dict[str, object], scaling: PositionScaling, name: str
) -> None:
    settings = ModelSettings.model_validate(SHAPE | changes)
    description = ModelDescription(settings, scaling=scaling)
    found = export_class(description)
    assert found.name == name == choose("auto", description)[0].hf_class
    assert ("trust_remote_code" in found.description) == (name == OWN)
    assert all(need in found.description for need in found.needs)


NEEDS = [
    ("llama", LLAMA_LIKE | {"norm": "layer"}, NoScaling(), "model.norm.type: rms"),
    ("llama", LLAMA_LIKE | WINDOW, NoScaling(), "model.sliding_window: null"),
    ("llama", LLAMA_LIKE, GROWING, "position_scaling: none"),
    ("llama", LLAMA_LIKE | {"head_dim": 6, "d_model": 9}, NoScaling(), "hidden_size"),
    ("gpt2", {"positions": "alibi"}, NoScaling(), "model.positions: learned"),
    ("gpt2", {"bias": False}, NoScaling(), "model.bias.norm: true and model.bias.query_key_value"),
    ("gpt2", {"n_kv_heads": 1}, NoScaling(), "model.n_kv_heads: 2"),
    ("gpt2", WINDOW, NoScaling(), "model.sliding_window: null"),
    ("qwen3", LLAMA_LIKE, NoScaling(), "model.query_key_norm: head"),
    (
        "mistral",
        LLAMA_LIKE | {"feed_forward": "relu", "norm": "rms", "bias": False},
        NoScaling(),
        "model.feed_forward: swiglu",
    ),
    (
        "mistral",
        LLAMA_LIKE | {"n_layers": 2, "sliding_window": {"tokens": 4, "full_every": 2}},
        NoScaling(),
        "model.sliding_window.full_layers: []",
    ),
]


@pytest.mark.parametrize(("architecture", "changes", "scaling", "need"), NEEDS)
def test_a_class_that_does_not_fit_says_what_it_needs(
    architecture: str, changes: dict[str, object], scaling: PositionScaling, need: str
) -> None:
    settings = ModelSettings.model_validate(SHAPE | changes)
    (found,) = ARCHITECTURES[architecture].misfits(settings, scaling)
    assert need in found


def test_rotary_positions_with_swiglu_are_llama_by_default() -> None:
    for positions in ("rotary", {"type": "rotary", "base": 500.0}, RotaryPositions(base=500.0)):
        settings = ModelSettings.model_validate(
            SHAPE | {"positions": positions, "feed_forward": "swiglu"}
        )
        assert settings.norm == NormSettings(type="rms") and not settings.bias
    given = ModelSettings.model_validate(
        SHAPE | LLAMA_LIKE | {"norm": {"epsilon": 1e-6}, "bias": True}
    )
    assert given.norm == NormSettings(type="rms", epsilon=1e-6) and given.bias


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"positions": "rotary"},
        {"feed_forward": "swiglu"},
        {"positions": "alibi", "feed_forward": "swiglu"},
        {"positions": {"type": "rotary", "fraction": 0.5}, "feed_forward": "swiglu"},
        {"positions": {"type": "rotary", "interleaved": True}, "feed_forward": "swiglu"},
    ],
)
def test_other_shapes_keep_layer_norm_and_biases(changes: dict[str, object]) -> None:
    settings = ModelSettings.model_validate(SHAPE | changes)
    assert settings.norm == NormSettings() and settings.bias
