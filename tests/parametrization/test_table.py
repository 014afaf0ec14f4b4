"""Every parametrization's printed table against the papers', and that each classic mistake shows.

The printed table is what `feldspar plan RECIPE --table --json` writes.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from feldspar.cli.main import run_with
from feldspar.core.errors import UserError
from feldspar.core.rows import ModelShapes
from feldspar.model.rows import model_shapes
from feldspar.parametrization.tables import table
from feldspar.recipe.sections.model import ModelSettings
from feldspar.recipe.sections.parametrization import ParametrizationSettings
from tests.parametrization.printed_table import RULES, Printed, Sizes, faults, kind

WIDTH, INNER_WIDTH, DEPTH = 4, 8, 3  # m_d, m_f, m_L: all different, so that none can be mixed up
SIZES = Sizes(
    width=WIDTH,
    inner_width=INNER_WIDTH,
    depth=DEPTH,
    n_layers=6,
    head_dim=32,
    init_std=0.08,
    learning_rate=1e-2,
    weight_decay=0.1,
    epsilon=1e-8,
    embedding=10.0,
    output=2.0,
    attention=0.5,
)
SP_FORM = {
    "embedding_multiplier": 1.0,
    "output_multiplier": 1.0,
    "attention_multiplier": 1.0,
}
CHANGES: dict[str, dict[str, Any]] = {
    "sp": {"type": "sp", **SP_FORM},
    "mup": {"type": "mup"},
    "supar": {"type": "supar"},
    "completep": {"type": "completep"},
    "depth-mup": {"type": "completep", "depth_exponent": 0.5},
    "supar over depth": {"type": "supar", "depth_exponent": 1.0},
}
RECIPE = """\
schema_version: 1
name: printed
model: {{n_layers: 6, d_model: 256, n_heads: 8, d_ff: 1024, vocab_size: 100,
  max_sequence_length: 32, tied_embeddings: false}}
parametrization: {parametrization}
optimizer: {{weight_decay: 0.1, epsilon: 1.0e-8}}
phases:
  - {{name: all, length: 10 steps, batch: {{sequences: 4}},
      sparsity: {{type: static, sparsity: 0.875, per_tensor: {{"*.output.weight": 0.9375}}}}}}
"""
"""Densities 1/8 and 1/16: with these widths no product of multipliers is 1."""


def settings(**changes: object) -> ParametrizationSettings:
    values = {
        "type": "mup",
        "base_d_model": 64,
        "base_d_ff": 128.0,
        "base_n_layers": 2,
        "init_std": SIZES.init_std,
        "learning_rate": SIZES.learning_rate,
        "embedding_multiplier": SIZES.embedding,
        "output_multiplier": SIZES.output,
        "attention_multiplier": SIZES.attention,
    }
    return ParametrizationSettings.model_validate(values | changes)


def shapes(width: int = WIDTH, inner_width: int = INNER_WIDTH, tied: bool = False) -> ModelShapes:
    return model_shapes(
        ModelSettings(
            n_layers=6,
            d_model=64 * width,
            n_heads=2 * width,
            d_ff=128 * inner_width,
            vocab_size=100,
            max_sequence_length=32,
            tied_embeddings=tied,
        )
    )


@pytest.fixture
def printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[str], Printed]:
    """What the command prints for a parametrization over a sparse recipe."""

    def plan(name: str) -> Printed:
        path = tmp_path / "recipe.yaml"
        section = settings(**CHANGES[name]).model_dump(mode="json", exclude_defaults=True)
        path.write_text(RECIPE.format(parametrization=json.dumps(section)))
        assert run_with(["plan", str(path), "--table", "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return plan


@pytest.mark.parametrize("name", RULES)
def test_the_printed_table_is_the_papers(name: str, printed: Callable[[str], Printed]) -> None:
    found = printed(name)
    assert faults(found, RULES[name], SIZES) == set()
    rows = found["tensors"]
    assert {kind(row["name"]) for row in rows} == {
        "embedding",
        "position",
        "hidden",
        "block output",
        "norm",
        "bias",
        "final norm",
        "head",
    }
    assert {row["density"] for row in rows} == {1, 1 / 8, 1 / 16}
    assert found["type"] == CHANGES[name]["type"]


def scaled(kinds: set[str], factor: float) -> Callable[[Printed], None]:
    """The mistake of multiplying the learning rate of some kinds of tensors."""

    def mistake(table: Printed) -> None:
        for row in table["tensors"]:
            if kind(row["name"]) in kinds:
                row["learning_rate"] *= factor

    return mistake


def one_rate_for_all(table: Printed) -> None:
    """The mistake of a scheduler that writes one number into every group."""
    for row in table["tensors"]:
        row["learning_rate"] = SIZES.learning_rate


def width_for_inner_width(table: Printed) -> None:
    """The mistake of taking m_d where m_f belongs."""
    for row in table["tensors"]:
        if row["name"].endswith("feed_forward.output.weight"):
            row["learning_rate"] *= INNER_WIDTH / WIDTH


MATRICES = {"hidden", "block output"}
MISTAKES: dict[str, tuple[Callable[[Printed], None], set[str]]] = {
    "gains and biases in the scaled group": (
        scaled({"norm", "final norm", "bias"}, 1 / WIDTH),
        {"norm", "final norm", "bias"},
    ),
    "block gains alone": (scaled({"norm"}, 1 / WIDTH), {"norm"}),
    "head in the scaled group": (scaled({"head"}, 1 / WIDTH), {"head"}),
    "division by the root of the width": (scaled(MATRICES, WIDTH**0.5), MATRICES),
    "embedding rate scaled": (
        scaled({"embedding", "position"}, 1 / WIDTH),
        {"embedding", "position"},
    ),
    "one rate in all groups": (one_rate_for_all, MATRICES),
    "m_d for m_f": (width_for_inner_width, {"block output"}),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("name", [name for name in RULES if name != "sp"])
def test_each_classic_mistake_is_seen(
    name: str, mistake: str, printed: Callable[[str], Printed]
) -> None:
    found = printed(name)
    spoil, kinds = MISTAKES[mistake]
    spoil(found)
    if name == "depth-mup" and mistake == "one rate in all groups":
        kinds = kinds | {"norm", "bias"}  # whose rates shrink with depth
    expected = {f"learning_rate of {kind}" for kind in kinds}
    assert faults(found, RULES[name], SIZES) == expected


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("supar", "mup"),
        ("completep", "mup"),
        ("depth-mup", "completep"),
        ("supar over depth", "supar"),
        ("supar over depth", "completep"),
        ("mup", "sp"),
    ],
)
def test_no_table_passes_for_another(
    name: str, other: str, printed: Callable[[str], Printed]
) -> None:
    assert faults(printed(name), RULES[other], SIZES)


@pytest.mark.parametrize(
    ("quantity", "kinds", "value"),
    [
        ("init_std", MATRICES, SIZES.init_std),
        ("init_std", {"head"}, SIZES.init_std / WIDTH**0.5),
        ("weight_decay", {"bias"}, SIZES.weight_decay),
        ("epsilon", {"hidden"}, SIZES.epsilon / 1000),
    ],
)
def test_mistakes_in_other_columns_are_seen(
    quantity: str, kinds: set[str], value: float, printed: Callable[[str], Printed]
) -> None:
    found = printed("mup")
    for row in found["tensors"]:
        if kind(row["name"]) in kinds:
            row[quantity] = value
    assert faults(found, RULES["mup"], SIZES) == {f"{quantity} of {kind}" for kind in kinds}
    for name in found["forward"]:
        spoilt = printed("mup")
        spoilt["forward"][name] *= 1.01
        assert faults(spoilt, RULES["mup"], SIZES) == {name}


def test_a_tied_embedding_stands_in_the_embedding_group() -> None:
    found = table(settings(), shapes(tied=True))
    embedding = found.entry("token_embedding.weight")
    assert "output.weight" not in {entry.name for entry in found.tensors}
    assert (embedding.init_std, embedding.learning_rate_multiplier) == (SIZES.init_std, 1)
    assert found.forward.output == SIZES.output / WIDTH


def test_at_the_base_size_mup_differs_from_sp_by_the_attention_alone() -> None:
    base = shapes(width=1, inner_width=1)
    sp = table(settings(**CHANGES["sp"]), base)
    mup = table(settings(**SP_FORM | {"attention_multiplier": 32**0.5}), base)
    assert mup.tensors == sp.tensors
    assert mup.forward.attention == pytest.approx(sp.forward.attention)
    assert replace(mup.forward, attention=0) == replace(sp.forward, attention=0)
    assert table(settings(**SP_FORM), base).forward.attention == 1 / 32


@pytest.mark.parametrize("name", ["mup", "supar"])
def test_weight_decay_and_epsilon_are_scaled_where_asked(name: str) -> None:
    plain = table(settings(**CHANGES[name]), shapes())
    decay = table(settings(**CHANGES[name], weight_decay_scaling="width"), shapes())
    epsilon = table(settings(**CHANGES[name], epsilon_scaling="width"), shapes())
    for before, decayed, smaller in zip(plain.tensors, decay.tensors, epsilon.tensors, strict=True):
        is_matrix = len(before.shape) == 2
        assert before.weight_decay_multiplier == is_matrix and before.epsilon_multiplier == 1
        # Rate times decay is that of the base.
        product = decayed.weight_decay_multiplier * decayed.learning_rate_multiplier
        assert product == is_matrix
        in_block = before.name.startswith("blocks.")
        assert smaller.epsilon_multiplier == (1 / WIDTH if in_block else 1)


def test_neither_is_scaled_over_depth_where_refused() -> None:
    found = table(
        settings(type="completep", weight_decay_scaling="none", epsilon_scaling="none"), shapes()
    )
    assert {entry.epsilon_multiplier for entry in found.tensors} == {1}
    assert {entry.weight_decay_multiplier for entry in found.tensors} == {0, 1}


@pytest.mark.parametrize("name", RULES)
def test_block_outputs_may_have_their_own_initial_values(name: str) -> None:
    plain = table(settings(**CHANGES[name]), shapes())
    found = table(settings(**CHANGES[name], block_output_init_std=0.5), shapes())
    for before, after in zip(plain.tensors, found.tensors, strict=True):
        is_output = kind(before.name) == "block output"
        assert after == (replace(before, init_std=0.5) if is_output else before)


def test_density_is_divided_by_the_base_density() -> None:
    name = "blocks.3.attention.query_key_value.weight"
    half = table(settings(type="supar", base_density=0.5), shapes(), {name: 0.125})
    whole = table(settings(type="supar"), shapes(), {name: 0.25})
    assert half.entry(name).init_std == whole.entry(name).init_std
    assert half.entry(name).learning_rate_multiplier == 1 / (WIDTH * 0.25)
    # A tensor is dense unless a density is given, and each has its own.
    assert whole.entry("blocks.2.attention.query_key_value.weight").learning_rate_multiplier == (
        1 / WIDTH
    )


@pytest.mark.parametrize("density", [0.0, -0.5, 1.5, float("nan")])
def test_a_density_outside_its_range_is_refused(density: float) -> None:
    name = "blocks.0.attention.output.weight"
    with pytest.raises(UserError, match=f"density of {name}"):
        table(settings(type="supar"), shapes(), {name: density})


def test_a_density_of_no_tensor_and_two_rows_of_one_are_refused() -> None:
    with pytest.raises(UserError, match="given for nothing, which the model does not"):
        table(settings(type="supar"), shapes(), {"nothing": 0.5})
    doubled = replace(shapes(), rows=(*shapes().rows, shapes().rows[3]))
    with pytest.raises(UserError, match="has two rows"):
        table(settings(), doubled)
