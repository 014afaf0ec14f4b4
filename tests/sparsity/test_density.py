"""Densities and kept counts from settings: exact, refused where they make no sense."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from feldspar.core.errors import UserError
from feldspar.core.rows import FanIn, ModelShapes, ParameterRow, Role
from feldspar.model.rows import model_shapes
from feldspar.parametrization.tables import table
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.parametrization import ParametrizationSettings
from feldspar.recipe.sections.sparsity import StaticSparsity
from feldspar.sparsity.density import (
    densities,
    density_of,
    distribute,
    kept_count,
    kept_counts,
    low_fan_in_warning,
    sparsities,
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


SIDES = st.integers(1, 400)
SHARES = st.integers(0, 999).map(lambda thousandths: thousandths / 1000)


def matrices(**named: tuple[int, int]) -> list[ParameterRow]:
    """Return rows of matrices inside blocks, which ``targets: ["*"]`` masks."""
    return [
        ParameterRow(name, Role.HIDDEN, shape, FanIn.D_MODEL, True) for name, shape in named.items()
    ]


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 8), st.integers(1, 8), SHARES)
def test_blocks_are_kept_in_whole_numbers(
    rows: int, columns: int, high: int, wide: int, sparsity: float
) -> None:
    settings = static(sparsity, targets=["*"], block=[high, wide])
    found = matrices(w=(rows * high, columns * wide))
    blocks = rows * columns
    kept = blocks - math.floor(sparsity * blocks + 0.5)
    if sparsity == 0:
        assert kept_counts(settings, found) == {}
    elif (kept * wide < rows) if high * wide > 1 else density_of(sparsity) * columns < 1:
        with pytest.raises(UserError, match="a neuron of w would keep less than one input"):
            kept_counts(settings, found)
    else:
        assert kept_counts(settings, found) == {"w": kept * high * wide}
        expected = density_of(sparsity) if high * wide == 1 else kept / blocks
        assert densities(settings, found) == {"w": expected}


def test_the_density_of_blocks_is_the_share_that_masks_keep() -> None:
    settings = static(0.9, targets=["*"], block=[4, 4])
    found = matrices(w=(16, 64))
    # 64 blocks: 57.6 would be zero, 58 are; 6 / 64 is less than 0.1.
    assert kept_counts(settings, found) == {"w": 6 * 16}
    assert densities(settings, found) == {"w": 6 / 64}
    assert sparsities(settings, found) == {"w": 0.9}


SPECIFIED = {"a": (64, 64), "b": (256, 64), "c": (64, 256)}


@pytest.mark.parametrize("distribution", ["er", "erk"])
def test_densities_follow_the_shapes(distribution: str) -> None:
    settings = static(0.9, targets=["*"], distribution=distribution)
    found = densities(settings, matrices(**SPECIFIED))
    assert found == {"a": 0.15, "b": 0.09375, "c": 0.09375}
    counts = kept_counts(settings, matrices(**SPECIFIED))
    assert counts == {"a": 614, "b": 1536, "c": 1536}
    assert abs(sum(counts.values()) - 0.1 * (64 * 64 + 2 * 256 * 64)) <= 3


def test_a_matrix_that_would_be_more_than_dense_is_dense() -> None:
    shapes = {"small": (4, 8), "large": (64, 64), "larger": (128, 128)}
    found = distribute(shapes, 0.7, "erk")
    assert found["small"] == 0
    # The rest of the budget, in proportion to 1/64 x 2 and 1/128 x 2.
    left = 0.3 * (32 + 64**2 + 128**2) - 32
    scale = left / (128 + 256)
    assert 1 - found["large"] == pytest.approx(scale * 128 / 64**2)
    assert 1 - found["larger"] == pytest.approx(scale * 256 / 128**2)
    rows = matrices(**shapes)
    assert densities(static(0.7, targets=["*"], distribution="erk"), rows).keys() == {
        "large",
        "larger",
    }


def test_convolutions_tell_er_from_erk() -> None:
    shapes = {"three": (8, 8, 3, 3), "one": (64, 64, 1, 1)}
    er, erk = (distribute(shapes, 0.9, name) for name in ("er", "erk"))
    ratio = (1 - er["three"]) / (1 - er["one"])
    assert ratio == pytest.approx((16 / 64) / (128 / 64**2))
    ratio = (1 - erk["three"]) / (1 - erk["one"])
    assert ratio == pytest.approx((22 / 576) / (130 / 64**2))


def reference(shapes: list[tuple[int, int]], sparsity: float) -> list[float]:
    """Return densities as public code solves them: the largest becomes dense, one at a time."""
    raw = [(rows + columns) / (rows * columns) for rows, columns in shapes]
    dense: set[int] = set()
    while True:
        rest = [index for index in range(len(shapes)) if index not in dense]
        budget = (1 - sparsity) * sum(rows * columns for rows, columns in shapes)
        budget -= sum(math.prod(shapes[index]) for index in dense)
        divisor = sum(raw[index] * math.prod(shapes[index]) for index in rest)
        scale = budget / divisor if rest else 0.0
        largest = max((raw[index] for index in rest), default=0.0)
        if scale * largest <= 1:
            return [1.0 if index in dense else scale * raw[index] for index in range(len(shapes))]
        dense |= {index for index in rest if raw[index] == largest}


@given(st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=8), SHARES)
def test_the_whole_has_the_sparsity_that_was_asked_for(
    shapes: list[tuple[int, int]], sparsity: float
) -> None:
    named = {str(number): shape for number, shape in enumerate(shapes)}
    found = distribute(named, sparsity, "erk")
    assert all(0 <= share <= 1 for share in found.values())
    entries = sum(rows * columns for rows, columns in shapes)
    kept = sum((1 - found[name]) * math.prod(shape) for name, shape in named.items())
    # Each share is rounded once, to 2^-53.
    assert abs(kept - (1 - sparsity) * entries) <= 1e-15 * (len(shapes) + 2) * entries
    whole = sum(kept_count(math.prod(shape), found[name]) for name, shape in named.items())
    assert abs(whole - (1 - sparsity) * entries) <= 0.5 * len(shapes) + 1e-6
    expected = reference(shapes, sparsity)
    assert [1 - found[name] for name in named] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_matrices_with_their_own_sparsity_are_taken_out_first() -> None:
    own = {"*.feed_forward.input.*": 0.5, "blocks.1.attention.output.weight": 0}
    rows = shapes(GPT).rows
    found = sparsities(static(0.9, distribution="erk", per_tensor=own), rows)
    free = {
        row.name: row.shape
        for row in rows
        if row.name in sparsities(static(0.9), rows)
        and "feed_forward.input" not in row.name
        and row.name != "blocks.1.attention.output.weight"
    }
    assert len(free) == 5
    fixed = {f"blocks.{n}.feed_forward.input.weight": 0.5 for n in (0, 1)}
    assert found == distribute(free, 0.9, "erk") | fixed


@pytest.mark.parametrize(
    ("block", "name"),
    [
        ([5, 1], "attention.query_key_value"),
        ([4, 3], "attention.query_key_value"),
        ([1, 128], "attention.query_key_value"),
        ([96, 1], "attention.output"),
    ],
)
def test_blocks_that_do_not_tile_a_matrix(block: list[int], name: str) -> None:
    with pytest.raises(UserError, match=rf"p\.block: blocks\.0\.{name}\.weight does not") as caught:
        densities(static(0.5, block=block), shapes(GPT).rows, "p")
    assert "(inputs)" in str(caught.value.found)


def test_a_matrix_left_dense_need_not_consist_of_blocks() -> None:
    settings = static(0.5, block=[96, 1], per_tensor={"*.output.*": 0, "*.feed_forward.*": 0})
    assert set(densities(settings, shapes(GPT).rows).values()) == {0.5}


def test_a_matrix_that_keeps_no_block() -> None:
    with pytest.raises(UserError, match="a neuron of w would keep less than one input") as caught:
        densities(static(0.9, targets=["*"], block=[8, 8]), matrices(w=(16, 16)))
    assert caught.value.found == "16 inputs at sparsity 0.9, in blocks of [8, 8]"


@pytest.mark.parametrize(
    ("pattern", "kept", "group"), [("2:4", 2, 4), ("1:3", 1, 3), ("5:8", 5, 8)]
)
def test_a_pattern_keeps_n_of_each_m(pattern: str, kept: int, group: int) -> None:
    settings = static(1 - kept / group, targets=["*"], pattern=pattern)
    rows = matrices(w=(10, 24))
    assert kept_counts(settings, rows) == {"w": 240 * kept // group}
    assert densities(settings, rows) == {"w": kept / group}
    with pytest.raises(
        UserError, match=f"pattern: the inputs of v do not divide into groups of {group}"
    ):
        densities(settings, matrices(v=(24, 10)))


def test_blocks_in_a_row_count_as_one_input_each() -> None:
    rows = matrices(w=(64, 64))
    line = low_fan_in_warning(static(0.75, targets=["*"], block=[1, 4]), rows)
    assert line is not None and "keeps 4 blocks of 4 inputs on average" in line
    assert low_fan_in_warning(static(0.75, targets=["*"], block=[4, 1]), rows) is None
    few = low_fan_in_warning(static(0.9375, targets=["*"], block=[4, 1]), rows)
    assert few is not None and "keeps 4 inputs on average" in few


def test_a_glob_of_parameters_that_are_never_masked_is_told() -> None:
    with pytest.raises(UserError) as caught:
        densities(static(0.5, targets=["*.bias"]), shapes(GPT).rows)
    assert "blocks.0.attention.query_key_value.bias" in caught.value.what


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
