"""Recipes that no table can be made of: each is refused with the key that is wrong."""

from pathlib import Path

import pytest

from feldspar.cli.main import run_with

RECIPE = """\
schema_version: 1
name: bad
model: {{n_layers: 4, d_model: 64, n_heads: {n_heads}, d_ff: 128, vocab_size: 50,
  max_sequence_length: 16}}
parametrization: {{{parametrization}}}
schedule: {{learning_rate: [{{to: 1, over: {warm_up}}}, {{to: 0, over: rest}}]}}
phases:
  - {{name: all, length: 10 steps, batch: {{sequences: 4}}}}
"""
MUP = "type: mup, base_d_model: 16, base_d_ff: 32, learning_rate: 0.01"
SUPAR = MUP.replace("mup", "supar")
COMPLETEP = "type: completep, base_d_model: 16, base_d_ff: 32, learning_rate: 0.01"
DEPTH = f"{COMPLETEP}, base_n_layers: 2"


def plan(tmp_path: Path, **changes: str) -> int:
    path = tmp_path / "recipe.yaml"
    values = {"n_heads": "4", "parametrization": MUP, "warm_up": "2 steps"}
    path.write_text(RECIPE.format(**(values | changes)))
    return run_with(["plan", str(path), "--table", "--json"])


@pytest.mark.parametrize("section", [MUP, DEPTH, f"{DEPTH}, depth_exponent: 0.5"])
def test_what_is_right(section: str, tmp_path: Path) -> None:
    assert plan(tmp_path, parametrization=section) == 0


@pytest.mark.parametrize(
    ("section", "key"),
    [
        (MUP.replace("base_d_model: 16, ", ""), "base_d_model"),
        (MUP.replace("base_d_ff: 32, ", ""), "base_d_ff"),
        ("type: mup, learning_rate: 0.01", "base_d_model"),
        ("type: supar, learning_rate: 0.01", "base_d_model"),
        ("type: sp, base_d_model: 16, learning_rate: 0.01", "base_d_ff"),
        (MUP.replace("base_d_model: 16", "base_d_model: 0"), "base_d_model"),
        (MUP.replace("base_d_model: 16", "base_d_model: -16"), "base_d_model"),
        (MUP.replace("base_d_ff: 32", "base_d_ff: 0.0"), "base_d_ff"),
        (MUP.replace("base_d_ff: 32", "base_d_ff: .inf"), "base_d_ff"),
        (COMPLETEP, "base_n_layers"),
        (f"{COMPLETEP}, base_n_layers: 0", "base_n_layers"),
        (f"{DEPTH}, depth_exponent: 0.49", "depth_exponent"),
        (f"{DEPTH}, depth_exponent: 1.01", "depth_exponent"),
        (f"{MUP}, base_n_layers: 2, depth_exponent: 1", "depth_exponent"),
        (f"{SUPAR}, depth_exponent: 1", "base_n_layers"),
        (f"{MUP}, base_density: 0.5", "base_density"),
        (f"{SUPAR}, base_density: 0", "base_density"),
        (f"{SUPAR}, base_density: 2", "base_density"),
        (MUP.replace("0.01", ".nan"), "learning_rate"),
        (MUP.replace("0.01", ".inf"), "learning_rate"),
        (MUP.replace("0.01", "-0.01"), "learning_rate"),
        (f"{MUP}, init_std: .inf", "init_std"),
        (f"{MUP}, init_std: .nan", "init_std"),
        (f"{MUP}, init_std: 0", "init_std"),
        (f"{MUP}, block_output_init_std: -.inf", "block_output_init_std"),
        (f"{MUP}, embedding_multiplier: 0", "embedding_multiplier"),
        ("type: sp, learning_rate: 1, weight_decay_scaling: width", "weight_decay_scaling"),
        ("type: sp, learning_rate: 1, epsilon_scaling: width", "epsilon_scaling"),
        ("type: muP, learning_rate: 1", "type"),
    ],
)
def test_the_key_is_named(
    section: str, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(tmp_path, parametrization=section) == 2
    out, err = capsys.readouterr()
    first, *details = err.splitlines()
    start = f"error: parametrization.{key}"
    assert first.startswith((f"{start}: ", f"{start} is not a finite number"))
    assert out == "" and any("recipe.yaml" in detail for detail in details)


def test_heads_that_do_not_divide_the_width(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(tmp_path, n_heads="5") == 2
    assert (
        "error: model.n_heads: d_model 64 is not a multiple of 5 heads" in capsys.readouterr().err
    )


@pytest.mark.parametrize("warm_up", ["11 steps", "641 tokens", "41 sequences", "101% of run"])
def test_a_warm_up_longer_than_the_run(
    warm_up: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(tmp_path, warm_up=warm_up) == 2
    err = capsys.readouterr().err
    assert "error: schedule.learning_rate.0: the segment ends after" in err
    assert "past the end at 640" in err


def test_a_warm_up_of_the_whole_run_is_allowed(tmp_path: Path) -> None:
    assert plan(tmp_path, warm_up="10 steps") == 0
