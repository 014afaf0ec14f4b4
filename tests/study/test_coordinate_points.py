"""Models, candidates and sizes of the coordinate check, and the input that it refuses."""

from pathlib import Path

import pytest

from feldspar.cli.main import run_with
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.model import ModelSettings
from feldspar.study.coordinate_points import (
    FULL,
    QUICK,
    Spread,
    candidates_of,
    model_at,
    name_of,
    point_on,
    spreads_of,
)
from tests.study.coordinates import PLAIN, recipe


def test_the_kind_of_model_is_the_recipes_and_its_size_the_checks() -> None:
    shape = ["model.d_model=128", "model.d_ff=344", "model.n_heads=4", "model.n_kv_heads=2"]
    kind = load_recipe("quickstart", [*shape, "model.dropout=0.1"]).recipe.model
    small = model_at(kind, point_on("width", 192))
    assert (small.d_model, small.n_heads, small.n_kv_heads, small.d_ff) == (192, 6, 3, 516)
    assert (small.n_layers, small.vocab_size, small.max_sequence_length) == (2, 256, 64)
    assert (small.positions, small.feed_forward, small.norm) == (
        kind.positions,
        "swiglu",
        kind.norm,
    )
    assert (small.bias, small.tied_embeddings, small.dropout) == (False, True, 0.0)
    few = kind.model_copy(update={"n_heads": 12, "n_kv_heads": 2})
    heads = [model_at(few, point_on("width", width)).n_kv_heads for width in (32, 192, 256, 512)]
    assert heads == [1, 1, 1, 2]
    odd = kind.model_copy(update={"positions": kind.positions.model_copy(update={"fraction": 0.1})})
    ModelSettings.model_validate(model_at(odd, point_on("width", 64)).model_dump())


def test_every_parametrization_is_judged_and_the_recipes_own_with_its_own_values() -> None:
    names = ["sp", "mup", "supar", "completep", "completep:0.5", "supar:1"]
    assert [one.name for one in candidates_of(PLAIN)] == names
    own = load_recipe("cerebras-gpt/paper", ["choose.parametrization=mup"]).recipe
    found = {one.name: one.settings for one in candidates_of(own)}
    # Tuned with the recipe's own rates, which the check replaces.
    assert {one.embedding_multiplier for one in found.values()} == {1.0}
    assert (found["sp"].init_std, found["mup"].init_std) == (0.02, 0.08)
    assert {one.init for one in found.values()} == {"truncated_normal"}
    assert found["mup"].base_d_ff == 256
    odd = recipe("parametrization.type=completep", "parametrization.depth_exponent=0.75",
                 "parametrization.base_n_layers=2")  # fmt: skip
    assert [one.name for one in candidates_of(odd)] == [*names, "completep:0.75"]
    assert name_of(odd.parametrization) == "completep:0.75"
    stated = load_recipe("cerebras-gpt/paper").recipe
    fixed = {one.name: one.settings.block_output_init_std for one in candidates_of(stated)}
    assert fixed == dict.fromkeys(names) | {"sp": 0.0044721}


def test_the_recipe_may_name_the_sizes() -> None:
    vary = (
        "study.vary={model.d_model: {low: 64, high: 256, points: 3}, model.n_layers: [8, 2, 4, 16],"
        " phases.0.sparsity.sparsity: [0.75, 0, 0.5, 0.5]}"
    )
    named = recipe(vary)
    assert {axis: spread.values for axis, spread in spreads_of(named, quick=False).items()} == {
        "width": (64, 128, 256),
        "density": (1, 0.5, 0.25),
        "depth": (2, 4, 8, 16),
    }
    assert spreads_of(named, quick=True)["depth"] == Spread((2, 8, 16), QUICK["depth"].seeds)
    assert spreads_of(PLAIN, quick=False) == FULL and spreads_of(PLAIN, quick=True) == QUICK


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["no/such"], "'no/such' is neither a file nor a shipped recipe"),
        (["quickstart", "model.d_modle=3"], "model.d_modle: unknown key"),
        (
            ["quickstart", "study.vary={model.d_model: [64, 100]}"],
            "study.vary: model.d_model: 100 is not a width of the check",
        ),
        (
            ["quickstart", "study.vary={model.d_model: {low: 64, high: 128}}"],
            "study.vary: model.d_model is a range without points",
        ),
        (
            ["quickstart", "study.vary={model.n_layers: [2, 2]}"],
            "study.vary: model.n_layers: a slope needs two different values",
        ),
        (
            ["quickstart", "study.vary={model.n_layers: [two, 4]}"],
            "study.vary: model.n_layers: 'two' is not a number",
        ),
        (
            ["quickstart", "study.vary={model.n_layers: [2.5, 4]}"],
            "study.vary: model.n_layers: 2.5 is not a number of blocks",
        ),
        (
            ["quickstart", "study.vary={phases.0.sparsity.sparsity: [0, 1]}"],
            "study.vary: phases.0.sparsity.sparsity: 1 is not a sparsity",
        ),
        (
            ["quickstart", "study.vary={phases.0.sparsity.sparsity: [-0.5, 0]}"],
            "study.vary: phases.0.sparsity.sparsity: -0.5 is not a sparsity",
        ),
        (
            ["quickstart", "study.vary={phases.0.sparsity.sparsity: [0, 0.999]}"],
            "sparsity: a neuron of blocks.0.attention.query_key_value.weight would keep less than",
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_before_anything_runs(
    arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run_with(["coordinate-check", *arguments, "--out", str(out)]) == 2
    shown = capsys.readouterr().err.splitlines()
    assert shown[0].startswith(f"error: {line}")
    assert not out.exists()
