"""Densities and kept counts from settings: exact, refused where they make no sense."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from feldspar.core.errors import UserError
from feldspar.core.rows import ModelShapes
from feldspar.model.rows import model_shapes
from feldspar.parametrization.tables import table
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.parametrization import ParametrizationSettings
from feldspar.recipe.sections.sparsity import StaticSparsity
from feldspar.sparsity.density import (
    densities,
    density_of,
    kept_count,
    kept_counts,
    low_fan_in_warning,
)

GPT = {
    "n_layers": 2,
    "d_model": 64,
    "n_heads": 4,
    "d_ff": 256,
    "vocab_size": 40,
    "max_sequence_length": 16,
}
LLAMA = GPT | {
    "n_kv_heads": 2,
    "positions": "rotary",
    "norm": "rms",
    "feed_forward": "swiglu",
    "bias": False,
    "tied_embeddings": False,
}
MATRICES = ("attention.query_key_value", "attention.output", "feed_forward.input")


def shapes(values: dict[str, object], **changes: object) -> ModelShapes:
    return model_shapes(ModelSettings.model_validate(values | changes))


def static(sparsity: float, **changes: object) -> StaticSparsity:
    return StaticSparsity.model_validate({"type": "static", "sparsity": sparsity} | changes)


@given(st.integers(0, 10**9), st.integers(0, 999))
def test_the_count_is_the_nearest_whole_number(entries: int, thousandths: int) -> None:
    kept = kept_count(entries, thousandths / 1000)
    # In whole numbers: the distance to the exact share is at most half an entry.
    assert abs(2 * (1000 * kept - (1000 - thousandths) * entries)) <= 1000
    if thousandths == 500 and entries % 2:
        assert kept == entries // 2, "half an entry rounds towards zeros"


def test_counts_of_the_paper() -> None:
    assert kept_count(64 * 48, 0.75) == 768
    assert kept_count(5, 0.1) == 4


@pytest.mark.parametrize("model", [GPT, LLAMA])
def test_only_matrices_of_blocks_are_masked(model: dict[str, object]) -> None:
    found = densities(static(0.75), shapes(model).rows)
    parts = (*MATRICES, "feed_forward.output")
    assert set(found) == {f"blocks.{n}.{part}.weight" for n in (0, 1) for part in parts}
    assert set(found.values()) == {0.25}


def test_targets_and_the_last_glob_that_matches() -> None:
    settings = static(
        0.5,
        targets=["feed_forward"],
        per_tensor={"blocks.*.feed_forward.*": 0.75, "blocks.1.*": 0.25, "blocks.0.attention.*": 0},
    )
    found = densities(settings, shapes(GPT).rows)
    assert {name: density for name, density in found.items() if ".0." in name} == {
        "blocks.0.feed_forward.input.weight": 0.25,
        "blocks.0.feed_forward.output.weight": 0.25,
    }
    assert {density for name, density in found.items() if ".1." in name} == {0.75}
    counts = kept_counts(settings, shapes(GPT).rows)
    assert counts["blocks.0.feed_forward.input.weight"] == 64 * 256 // 4


def test_no_sparsity_is_dense() -> None:
    assert densities(static(0), shapes(GPT).rows) == {}


@pytest.mark.parametrize("pattern", ["attn", "blocks.2.*", "*.bias", "*norm*", "token_embedding.*"])
@pytest.mark.parametrize("key", ["targets", "per_tensor"])
def test_a_glob_that_matches_no_matrix_of_a_block(key: str, pattern: str) -> None:
    given = [pattern] if key == "targets" else {pattern: 0.5}
    with pytest.raises(UserError, match=f"phases.0.sparsity.{key}: .* matches no matrix") as caught:
        densities(static(0.5, **{key: given}), shapes(GPT).rows, "phases.0.sparsity")
    assert repr(pattern) in caught.value.what


@pytest.mark.parametrize(
    ("value", "message"),
    [(75, "write 0.75 for 75 %"), (1, "less than 1"), (-0.1, "less than 1"), (100, "less than 1")],
)
def test_what_is_no_sparsity(value: float, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        static(value)
    with pytest.raises(ValidationError, match=message):
        static(0.5, per_tensor={"blocks.*": value})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_not_a_number(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        static(value)


def test_a_neuron_keeps_an_input() -> None:
    rows = shapes(GPT, d_model=40).rows
    assert kept_counts(static(0.975), rows)["blocks.0.attention.output.weight"] == 40
    with pytest.raises(
        UserError, match=r"blocks\.0\.attention\.query_key_value\.weight would keep"
    ):
        densities(static(0.98), rows)


def test_few_inputs_are_worth_a_warning() -> None:
    rows = shapes(GPT).rows
    assert low_fan_in_warning(static(0.875), rows) is None
    line = low_fan_in_warning(static(0.9), rows, "phases.0.sparsity")
    assert line is not None and line.startswith("phases.0.sparsity: ")
    # The matrix that sums over d_ff keeps 25.6.
    assert "keeps 6.4 inputs on average, and 6 of 8 masked matrices" in line


@given(st.integers(1, 9999))
def test_a_density_is_the_decimal_complement(ten_thousandths: int) -> None:
    sparsity = (10_000 - ten_thousandths) / 10_000
    assert density_of(sparsity) == ten_thousandths / 10_000


@pytest.mark.parametrize(
    ("d_model", "sparsity", "base_density"), [(256, 0.75, 1.0), (640, 0.9, 1.0), (512, 0.9375, 0.5)]
)
def test_the_same_inputs_of_each_neuron_give_the_values_of_the_base(
    d_model: int, sparsity: float, base_density: float
) -> None:
    """Width times density as at the base: every hidden std and rate is the base's, exactly."""
    settings = ParametrizationSettings(
        type="supar",
        base_d_model=64,
        base_d_ff=256,
        base_density=base_density,
        init_std=0.08,
        learning_rate=1e-2,
    )
    base = table(settings, shapes(GPT), densities(static(1 - base_density), shapes(GPT).rows))
    wide = shapes(GPT, d_model=d_model, d_ff=4 * d_model)
    scaled = table(settings, wide, densities(static(sparsity), wide.rows))
    for before, after in zip(base.tensors, scaled.tensors, strict=True):
        if after.density == 1.0:
            continue
        assert before.name == after.name
        assert after.init_std == before.init_std
        assert after.learning_rate_multiplier == before.learning_rate_multiplier == 1
    assert sum(entry.density < 1 for entry in scaled.tensors) == 8
