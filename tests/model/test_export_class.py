"""Which class a model is exported as: said by settings alone, and the same as export chooses."""

import pytest

from feldspar.huggingface.adapter import ModelDescription
from feldspar.huggingface.architectures import choose
from feldspar.model.export_class import GPT2, LLAMA, MINISTRAL, OWN, export_class
from feldspar.recipe.sections.block_parts import NormSettings
from feldspar.recipe.sections.model import (
    LinearScaling,
    ModelSettings,
    NoScaling,
    PositionScaling,
    RotaryPositions,
)

SHAPE = {
    "n_layers": 1,
    "d_model": 8,
    "n_heads": 2,
    "d_ff": 8,
    "vocab_size": 16,
    "max_sequence_length": 8,
}
LLAMA_LIKE = {"positions": "rotary", "feed_forward": "swiglu"}
WINDOW = "model.sliding_window: left at its default"
GROWING = LinearScaling(type="linear", train_length=8)

CASES = [
    ({}, NoScaling(), GPT2, ()),
    (LLAMA_LIKE, NoScaling(), LLAMA, ()),
    (LLAMA_LIKE | {"bias": True}, NoScaling(), LLAMA, ()),
    (LLAMA_LIKE | {"norm": "layer"}, NoScaling(), OWN, ("model.norm: rms",)),
    (LLAMA_LIKE | {"dropout": 0.1}, NoScaling(), OWN, ("model.dropout: 0",)),
    (LLAMA_LIKE, GROWING, OWN, ("position_scaling: linear with a factor, yarn, llama3 or none",)),
    ({"positions": "alibi"}, NoScaling(), OWN, ("model.positions: learned",)),
    ({"sliding_window": {"tokens": 4}}, NoScaling(), OWN, (WINDOW,)),
    (LLAMA_LIKE | {"sliding_window": {"tokens": 4}}, NoScaling(), MINISTRAL, ()),
    (LLAMA_LIKE | {"sliding_window": {"tokens": 4}, "bias": True}, NoScaling(), OWN, (WINDOW,)),
    ({"bias": False}, NoScaling(), OWN, ("model.bias: true",)),
    ({"n_kv_heads": 1}, NoScaling(), OWN, ("model.n_kv_heads: as many as n_heads",)),
    (
        {"positions": "alibi", "feed_forward": "swiglu"},
        NoScaling(),
        OWN,
        ("model.positions: rotary, whole and not interleaved", "model.norm: rms"),
    ),
]


@pytest.mark.parametrize(("changes", "scaling", "name", "needs"), CASES)
def test_the_class_and_what_it_lacks(
    changes: dict[str, object], scaling: PositionScaling, name: str, needs: tuple[str, ...]
) -> None:
    settings = ModelSettings.model_validate(SHAPE | changes)
    found = export_class(settings, scaling)
    assert (found.name, found.needs) == (name, needs)
    assert choose("auto", ModelDescription(settings, scaling=scaling))[0].hf_class == name
    assert ("trust_remote_code" in found.description) == (name == OWN)
    assert all(need in found.description for need in needs)


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
