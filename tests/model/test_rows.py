"""Rows of decoders: published parameter counts, names and shapes of values, roles."""

import pytest
from torch import nn

from feldspar.core.errors import UserError
from feldspar.core.rows import FanIn, ParameterRole, Role
from feldspar.model.rows import model_shapes, module_rows
from feldspar.recipe.sections.model import ModelSettings

CEREBRAS_GPT = {
    (10, 768, 12, 3072): 111_050_496,
    (14, 1088, 17, 4352): 255_977_024,
    (18, 1536, 12, 6144): 590_310_912,
    (24, 2048, 16, 8192): 1_315_723_264,
    (32, 2560, 32, 10240): 2_651_553_280,
    (32, 4096, 32, 16384): 6_658_404_352,
    (40, 5120, 40, 20480): 12_853_386_240,
}
BTLM = ModelSettings.model_validate(
    {
        "n_layers": 32,
        "d_model": 2560,
        "n_heads": 32,
        "d_ff": 6826,
        "vocab_size": 50257,
        "max_sequence_length": 8192,
        "positions": "alibi",
        "feed_forward": "swiglu",
    }
)
CRYSTAL = ModelSettings.model_validate(
    {
        "n_layers": 32,
        "d_model": 4096,
        "n_heads": 32,
        "d_ff": 10922,
        "vocab_size": 32032,
        "max_sequence_length": 2048,
        "positions": {"type": "rotary", "fraction": 0.25, "interleaved": True},
        "feed_forward": "swiglu",
    }
)


def cerebras_gpt(n_layers, d_model, n_heads, d_ff):
    return ModelSettings(
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        d_ff=d_ff,
        vocab_size=50257,
        max_sequence_length=2048,
    )


@pytest.mark.parametrize("shape", CEREBRAS_GPT)
def test_cerebras_gpt_sizes(shape):
    assert model_shapes(cerebras_gpt(*shape)).parameters == CEREBRAS_GPT[shape]


def test_btlm_and_crystal_sizes():
    assert model_shapes(BTLM).parameters == 2_646_255_744
    assert model_shapes(CRYSTAL).parameters == 6_575_278_720


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bias": False},
        {"norm": "rms"},
        {"tied_embeddings": False, "positions": "none"},
        {"n_kv_heads": 2, "head_dim": 6, "feed_forward": "swiglu", "positions": "rotary"},
    ],
    ids=lambda changes: ",".join(changes) or "default",
)
def test_rows_are_those_of_a_model_with_values(make_decoder, make_settings, changes):
    shapes = model_shapes(make_settings(**changes))
    decoder = make_decoder(**changes)
    shapes_by_name = {name: tuple(item.shape) for name, item in decoder.named_parameters()}
    assert {row.name: row.shape for row in shapes.rows} == shapes_by_name
    assert shapes.parameters == sum(parameter.numel() for parameter in decoder.parameters())


def test_roles_of_the_rows(make_settings):
    rows = {row.name: row for row in model_shapes(make_settings(tied_embeddings=False)).rows}
    assert rows["output.weight"].role is Role.OUTPUT
    down = rows["blocks.1.feed_forward.output.weight"]
    assert (down.fan_in, down.writes_residual, down.in_block) == (FanIn.D_FF, True, True)
    assert rows["blocks.0.attention.output.weight"].writes_residual
    assert not rows["blocks.0.attention.output.bias"].writes_residual
    assert rows["final_norm.weight"].initial_mean == 1.0 and not rows["final_norm.weight"].in_block
    assert rows["final_norm.bias"].initial_mean == 0.0


def test_a_parameter_without_a_role_is_named():
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(UserError, match=r"0\.weight belongs to no role"):
        module_rows(model)
    part = nn.Linear(2, 2, bias=False)
    part.parameter_roles = {"weight": ParameterRole(Role.HIDDEN)}
    assert [row.name for row in module_rows(nn.Sequential(part))] == ["0.weight"]
