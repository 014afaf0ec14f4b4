"""Scaled slopes and frequencies: oracles B2, B5, B7 of the method, transformers' own formulas."""

import math
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from feldspar.core.errors import UserError
from feldspar.model.position_scaling import scaled_frequencies, scaled_slopes
from feldspar.model.positions import alibi_slopes
from feldspar.recipe.sections.model import RotaryPositions
from feldspar.recipe.sections.position_scaling import NoScaling, PositionScaling

ADAPTER: TypeAdapter[PositionScaling] = TypeAdapter(PositionScaling)


def scaling(kind: str, **keys: Any) -> PositionScaling:
    return ADAPTER.validate_python({"type": kind, **keys})


def slopes(n_heads: int, chosen: PositionScaling, length: Any = 1) -> torch.Tensor:
    return scaled_slopes(alibi_slopes(n_heads), chosen, length, torch.float64)


def frequencies(chosen: PositionScaling, length: Any = 1, head_dim: int = 64) -> torch.Tensor:
    return scaled_frequencies(RotaryPositions(), head_dim, chosen, length, torch.float64)[0]


def test_printed_slopes() -> None:
    assert slopes(8, scaling("linear", factor=2)).tolist() == [2.0**-i for i in range(2, 10)]
    wanted = [0.5, 0.22643092, 0.1025419195, 0.04643732, 0.02102969]
    wanted += [0.009523544, 0.00431285, 0.001953125]
    assert slopes(8, scaling("ntk", factor=2)).tolist() == pytest.approx(wanted, abs=5e-9)
    found = slopes(16, scaling("ntk", factor=4)).tolist()
    assert found[:3] == pytest.approx([0.70710678, 0.45586124, 0.29388698], abs=5e-9)
    assert found[-1] == pytest.approx(0.0009765625, rel=1e-12)


@pytest.mark.parametrize("length", [1, 63, 64, torch.tensor([1, 63, 64])])
def test_shorter_than_trained_nothing_is_stretched(length: Any) -> None:
    plain = torch.tensor(alibi_slopes(4), dtype=torch.float64)
    found = slopes(4, scaling("linear", train_length=64), length)
    assert torch.equal(found, plain[:, None].expand(found.shape) if found.dim() > 1 else plain)
    unscaled = frequencies(NoScaling())
    for chosen in (
        scaling("linear", train_length=64),
        scaling("ntk", factor=4, train_length=64),
    ):
        growing = frequencies(chosen, length)
        torch.testing.assert_close(growing, unscaled.expand(growing.shape), rtol=1e-12, atol=0)


@pytest.mark.parametrize("n_heads", [2, 8, 12, 71])
def test_a_factor_of_one_changes_no_bit(n_heads: int) -> None:
    plain = torch.tensor(alibi_slopes(n_heads), dtype=torch.float64)
    for chosen in (NoScaling(), scaling("linear", factor=1), scaling("ntk", factor=1)):
        assert torch.equal(slopes(n_heads, chosen), plain)
    growing = scaling("linear", train_length=64)
    assert torch.equal(slopes(n_heads, growing, 64), plain)
    assert torch.equal(frequencies(scaling("linear", factor=1)), frequencies(NoScaling()))


def test_ntk_of_twelve_heads_goes_by_steepness_not_by_order() -> None:
    plain = torch.tensor(alibi_slopes(12), dtype=torch.float64)
    divisors = plain / slopes(12, scaling("ntk", factor=3))
    order = plain.argsort(descending=True)
    expected = [3 ** (rank / 11) for rank in range(12)]
    assert divisors[order].tolist() == pytest.approx(expected, rel=1e-12)


def test_the_bias_at_twice_the_distance_is_that_of_half_the_slope() -> None:
    halved, plain = slopes(12, scaling("linear", factor=2)), slopes(12, NoScaling())
    distance = torch.arange(0, 200, 2)
    assert torch.equal(halved[:, None] * distance, plain[:, None] * (distance / 2))


def test_a_length_of_each_position_gives_slopes_of_each_query() -> None:
    growing = scaling("linear", train_length=4, scope="query")
    lengths = torch.tensor([[1, 2, 8], [4, 6, 12]])
    found = slopes(2, growing, lengths)
    factors = torch.tensor([[1, 1, 2], [1, 1.5, 3]]).double()
    plain = torch.tensor(alibi_slopes(2)).double()
    assert torch.equal(found, plain[None, :, None] / factors[:, None])
    assert torch.equal(slopes(2, growing, lengths[0]), found[0])


def test_printed_frequencies() -> None:
    plain = frequencies(NoScaling())
    base = 41829.3659
    ntk = frequencies(scaling("ntk", factor=4))
    assert ntk[1].item() == pytest.approx(base ** (-2 / 64), rel=1e-9)
    assert (plain[-1] / ntk[-1]).item() == pytest.approx(4)
    grown = frequencies(scaling("ntk", factor=2, train_length=2048), 8192)
    assert grown[1].item() == pytest.approx(74534.830 ** (-2 / 64), rel=1e-9)
    yarn = scaling("yarn", factor=4, train_length=2048)
    found, multiplier = scaled_frequencies(RotaryPositions(), 64, yarn, 1, torch.float64)
    assert multiplier == pytest.approx(1.138629436)
    assert torch.equal(found[:9], plain[:9])
    assert found[10].item() == pytest.approx(0.0497455788, rel=1e-8)
    assert found[20].item() == pytest.approx(9.7300851e-4, rel=1e-7)
    torch.testing.assert_close(found[21:], plain[21:] / 4)


@pytest.mark.parametrize(
    ("name", "chosen", "extra"),
    [
        ("linear", {"type": "linear", "factor": 4.0}, {}),
        ("yarn", {"type": "yarn", "factor": 4.0, "train_length": 512}, {}),
        (
            "llama3",
            {"type": "llama3", "factor": 8.0, "train_length": 512},
            {"low_freq_factor": 1.0, "high_freq_factor": 4.0},
        ),
        ("dynamic", {"type": "ntk", "factor": 2.0, "train_length": 512}, {}),
    ],
)
@pytest.mark.parametrize("head_dim", [32, 128])
def test_frequencies_are_those_of_transformers(
    name: str, chosen: dict[str, Any], extra: dict[str, float], head_dim: int
) -> None:
    ours, multiplier = scaled_frequencies(
        RotaryPositions(base=5e5),
        head_dim,
        scaling(
            **{"kind": chosen["type"]}
            | {key: value for key, value in chosen.items() if key != "type"}
        ),
        1500,
        torch.float32,
    )
    parameters = {
        "rope_type": name,
        "rope_theta": 5e5,
        "factor": chosen["factor"],
        "original_max_position_embeddings": 512,
        **extra,
    }
    config = LlamaConfig(
        hidden_size=2 * head_dim,
        num_attention_heads=2,
        max_position_embeddings=512,
        rope_parameters=parameters,
    )
    theirs, attention_factor = ROPE_INIT_FUNCTIONS[name](config, "cpu", seq_len=1500)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)
    assert multiplier == pytest.approx(attention_factor)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"type": "linear"}, "give either factor or train_length"),
        ({"type": "linear", "factor": 2, "train_length": 64}, "give either factor or train_length"),
        ({"type": "linear", "factor": 0.5}, "write 2, not 0.5, to reach 2 times as far"),
        ({"type": "linear", "factor": 0}, "a factor must be 1"),
        ({"type": "linear", "factor": math.nan}, "finite number"),
        ({"type": "linear", "train_length": 1}, "greater than 1"),
        ({"type": "linear", "factor": 2, "scope": "query"}, "needs train_length"),
        ({"type": "yarn", "factor": 2}, "Field required"),
        ({"type": "longrope"}, "'longrope'"),
    ],
)
def test_what_is_no_scaling_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ADAPTER.validate_python(keys)


@pytest.mark.parametrize(
    ("positions", "chosen", "message"),
    [
        ("learned", scaling("linear", factor=2), "the model has learned"),
        ("none", scaling("ntk", factor=2), "the model has none"),
        ("alibi", scaling("yarn", factor=2, train_length=64), "the model has alibi"),
        ("alibi", scaling("ntk", factor=2, train_length=64), "the model has alibi"),
        (
            {"type": "alibi", "rounded": True},
            scaling("linear", train_length=64),
            "slopes that are not rounded; give a factor",
        ),
        (
            "rotary",
            scaling("linear", train_length=64, scope="query"),
            "scope: query works with alibi",
        ),
    ],
)
def test_what_does_not_fit_the_positions_is_refused(
    make_decoder: Any, positions: Any, chosen: PositionScaling, message: str
) -> None:
    decoder = make_decoder(positions=positions)
    with pytest.raises(UserError, match=message):
        decoder.scale_positions(chosen)
    assert decoder.position_scaling == NoScaling()
    with pytest.raises(UserError, match="the model has only one"):
        make_decoder(positions="alibi", n_heads=1).scale_positions(scaling("ntk", factor=2))


def test_ntk_needs_several_heads() -> None:
    ntk = TypeAdapter[PositionScaling](PositionScaling).validate_python(
        {"type": "ntk", "factor": 2}
    )
    with pytest.raises(ValueError, match="only one"):
        scaled_slopes(alibi_slopes(1), ntk, 8)
