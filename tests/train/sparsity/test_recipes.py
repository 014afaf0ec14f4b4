"""What a recipe may ask of masks, and what is said of them beforehand and at the start."""

import json
from pathlib import Path

import pytest

from feldspar.core.errors import UserError
from feldspar.recipe.load import load_recipe
from tests.train.sparsity.conftest import DENSE_LATER, SPARSE, recipe_of


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([SPARSE, DENSE_LATER[0]], r"phases\.1\.optimizer_state: this phase drops the masks"),
        (
            [SPARSE, DENSE_LATER[0], "phases.1.optimizer_state=keep"],
            r"phases\.1\.optimizer_state: this phase drops the masks; set",
        ),
        ([SPARSE.replace("0", "1", 1)], r"phases\.1\.sparsity: a later phase can only keep"),
        (
            [SPARSE, SPARSE.replace("0", "1", 1).replace("0.75", "0.5")],
            r"phases\.1\.sparsity: a later phase can only keep",
        ),
        ([SPARSE.replace("0.75", "75")], r"phases\.0\.sparsity\.sparsity: .* write 0\.75"),
    ],
)
def test_what_a_recipe_may_not_ask_for(
    recipe_file: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(str(recipe_file), overrides)


def test_the_same_masks_may_be_said_again(recipe_file: Path) -> None:
    recipe_of(recipe_file, SPARSE, SPARSE.replace("0", "1", 1))


def test_warnings_and_dead_units_are_said_at_the_start(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from feldspar.cli.main import run_with

    sparse = SPARSE.replace("0.75", "0.95")
    out = tmp_path / "run"
    overrides = [sparse, "phases.0.length=2 steps", "phases.1.length=2 steps", "--out", str(out)]
    assert run_with(["train", str(recipe_file), *overrides]) == 0
    said = capsys.readouterr().err
    assert said.count("keeps 1.6 inputs on average, and 8 of 8 masked matrices keep fewer") == 1
    started = json.loads((out / "events.jsonl").read_text().splitlines()[0])["masks"]
    assert started["dead_units"] > 0
    assert f"{started['dead_units']} of 192 units are dead" in said
    assert run_with(["train", str(recipe_file), *overrides]) == 0
    assert "inputs on average" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("sparsity: 0.75, block: [5, 1]", "blocks.0.attention.query_key_value.weight does not"),
        ("sparsity: 0.75, block: [4]", "phases.0.sparsity.block"),
        ("sparsity: 0.97, block: [32, 32]", "blocks.0.attention.query_key_value.weight would keep"),
        ("sparsity: 0.75, pattern: 2:4", "it is 0.75, but the pattern 2:4 leaves 0.5"),
        ("sparsity: 0.4, pattern: 3:5", "do not divide into groups of 5"),
        ("sparsity: 0.5, pattern: 2:4, block: [4, 1]", "phases.0.sparsity.block: the pattern"),
        ("sparsity: 0.98, distribution: erk", "found: 32 inputs at sparsity 0.982222"),
        ("sparsity: .nan, distribution: erk", "sparsity is not a finite number"),
        ("sparsity: 0.5, per_tensor: {'blocks.7.*': 0}", "'blocks.7.*' matches no matrix"),
    ],
)
def test_bad_masks_are_refused_with_exit_code_2(
    recipe_file: Path, capsys: pytest.CaptureFixture[str], settings: str, message: str
) -> None:
    from feldspar.cli.main import run_with

    override = f"phases.0.sparsity={{type: static, {settings}}}"
    assert run_with(["plan", str(recipe_file), override]) == 2
    assert message in capsys.readouterr().err


def test_the_plan_in_text_and_json(recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from feldspar.cli.main import run_with

    sparse = SPARSE.replace("0.75", "0.9")
    arguments = ["plan", str(recipe_file), sparse, *DENSE_LATER, "--table"]
    assert run_with([*arguments, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    zeros = 2 * sum(int(0.9 * n + 0.5) for n in (96 * 32, 32 * 32, 64 * 32, 32 * 64))
    assert values["parameters"]["active"] == values["parameters"]["total"] - zeros
    assert [phase["active_parameters"] for phase in values["phases"]] == [
        values["parameters"]["active"],
        values["parameters"]["total"],
    ]
    assert "keeps 3.2 inputs" in values["warnings"][0]
    assert {row["density"] for row in values["tensors"] if row["role"] == "hidden"} == {0.1}
    assert run_with(arguments) == 0
    text = capsys.readouterr().out
    assert f"{values['parameters']['active']:,} active" in text
    assert f"{values['flops']['ledger']:.4g} by ledger (FLOPs not realised" in text
    assert "warning     phases.0.sparsity: a neuron of" in text
    (row,) = [line for line in text.splitlines() if "blocks.0.feed_forward.input.weight" in line]
    assert row.split()[3] == "0.1"
