"""Masks that move in the plan: positions of moves, and FLOPs by the ledger."""

import json
from pathlib import Path

import pytest

from feldspar.cli.main import run_with
from feldspar.core.errors import UserError
from feldspar.plan.moving_masks import move_positions
from feldspar.plan.summary import Plan, plan_recipe
from feldspar.recipe.load import load_recipe

MEDISWIFT_XL = """\
schema_version: 1
name: moves
model: {n_layers: 24, d_model: 2048, n_heads: 16, d_ff: 8192, vocab_size: 42384,
  max_sequence_length: 2048}
parametrization: {learning_rate: 1}
phases:
  - {name: sparse, length: 1000 steps, batch: {sequences: 1},
      sparsity: {type: static, sparsity: 0.75}}
"""
TOKENS = 2048
"""Tokens of a step."""


def plan_of(folder: Path, sparsity: str, *overrides: str) -> Plan:
    path = folder / "recipe.yaml"
    path.write_text(MEDISWIFT_XL)
    chosen = f"phases.0.sparsity={{sparsity: 0.75, {sparsity}}}"
    return plan_recipe(load_recipe(str(path), [chosen, *overrides]).recipe)


def steps_of(plan: Plan) -> list[float]:
    """The steps that end with a move."""
    (schedule,) = plan.mask_schedules
    assert schedule is not None
    return [position / TOKENS for position in move_positions(plan.timeline.phases[0], schedule)]


def walked(plan: Plan) -> list[int]:
    """The same positions, by asking at every step as training does."""
    (schedule,) = plan.mask_schedules
    assert schedule is not None
    found, position = [], 0
    while (step := plan.timeline.next_step(position)) is not None:
        position = step.position_after
        if schedule.is_due(step.position_before, position):
            found.append(position)
    return found


@pytest.mark.parametrize(
    "keys",
    [
        "type: rigl",
        "type: set, every: 70 steps, begin: 100 steps, end: 50% of phase",
        "type: rigl, every: 100_000 tokens, begin: 5000 tokens, end: 1_000_000 tokens",
        "type: rigl, every: 1 tokens, end: 10 steps",
        "type: gradual, every: 30% of phase, end: 777 steps",
        "type: gradual, end: 1000 steps",
        "type: gradual, every: 1000 steps, begin: 999 steps, end: rest",
    ],
)
def test_moves_are_those_of_training(tmp_path: Path, keys: str) -> None:
    plan = plan_of(tmp_path, keys)
    assert steps_of(plan) == [position / TOKENS for position in walked(plan)] != []


def test_moves_over_a_growing_batch(tmp_path: Path) -> None:
    levels = "[{from: 0 steps, sequences: 1}, {from: 9 steps, sequences: 5}]"
    batch = f"phases.0.batch={{type: by_tokens, levels: {levels}}}"
    plan = plan_of(tmp_path, "type: rigl, every: 7000 tokens, begin: 3 steps", batch)
    assert steps_of(plan) == [position / TOKENS for position in walked(plan)] != []


def test_rigl_costs_what_its_paper_says(tmp_path: Path) -> None:
    static = plan_of(tmp_path, "type: static").summary()["flops"]["ledger"]
    plan = plan_of(tmp_path, "type: rigl, every: 100 steps, end: 100% of phase")
    summary = plan.summary()
    assert summary["flops"]["ledger"] / static == pytest.approx(1.00507, abs=5e-6)
    moves = summary["phases"][0]["moving_masks"]
    assert moves["flops_over_static"] == pytest.approx(1.00507, abs=5e-6)
    assert moves["moves"] == 9, "neither at the begin nor at the end"
    dense = plan_of(tmp_path, "type: static", "phases.0.sparsity=dense").summary()
    sparse, whole = static / 3, dense["flops"]["ledger"] / 3
    per_step = (3 * sparse * 100 + 2 * sparse + whole) / 101
    assert summary["flops"]["ledger"] == pytest.approx(per_step, rel=1e-12)
    # Three quarters of the phase move masks.
    part = plan_of(tmp_path, "type: rigl, every: 100 steps").summary()
    added = part["flops"]["ledger"] - static
    assert added == pytest.approx(0.75 * (per_step - static), rel=1e-9)
    assert part["phases"][0]["moving_masks"]["flops_over_static"] == moves["flops_over_static"]
    assert plan_of(tmp_path, "type: set").summary()["flops"]["ledger"] == static


def test_pruning_is_counted_by_its_density_over_time(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path, "type: gradual, every: 1 steps, end: 100% of phase, initial_sparsity: 0.25"
    )
    matrices = 24 * 12 * 2048**2
    expected = 0.0
    for step in range(1000):  # a step has the masks of the move before it
        share = 0.75 + (0.25 - 0.75) * (1 - step / 1000) ** 3
        expected += 6 * matrices * (1 - share) * TOKENS
    phase = plan.summary()["phases"][0]
    # Each matrix rounds its kept entries, of which it has 4 million or more.
    assert phase["ledger"]["matrices"] == pytest.approx(expected, rel=1e-6)
    assert phase["moving_masks"]["moves"] == 1000
    assert phase["active_parameters"] == plan_of(tmp_path, "type: static").active_parameters(0)


def test_frozen_matrices_do_not_move(tmp_path: Path) -> None:
    frozen = "phases.0.trainable=[embedding, output]"
    rigl = plan_of(tmp_path, "type: rigl", frozen).summary()["phases"][0]
    static = plan_of(tmp_path, "type: static", frozen).summary()["phases"][0]
    assert rigl["ledger"] == static["ledger"]
    dense = plan_of(tmp_path, "type: static", frozen, "phases.0.sparsity=dense").summary()
    gradual = plan_of(tmp_path, "type: gradual", frozen).summary()["phases"][0]
    assert gradual["ledger"] == dense["phases"][0]["ledger"]


@pytest.mark.parametrize("keys", ["gradual", "gradual, initial_sparsity: 0.5", "rigl", "set"])
def test_multipliers_of_moving_masks_are_those_of_their_final_density(
    tmp_path: Path, keys: str
) -> None:
    base = "parametrization={type: supar, base_d_model: 256, base_d_ff: 1024, learning_rate: 1e-2}"
    static = plan_of(tmp_path, "type: static", base)
    plan = plan_of(tmp_path, f"type: {keys}", base)
    assert plan.tables == static.tables
    output = plan.tables[0].entry("blocks.0.attention.output.weight")
    # 2048 / 256 wider, and a quarter of the inputs are kept.
    assert (output.density, output.learning_rate_multiplier) == (0.25, 1 / (8 * 0.25))
    late = [line for line in plan.warnings if "denser than the table says" in line]
    assert len(late) == keys.startswith("gradual")


def test_only_supar_has_a_table_by_density(tmp_path: Path) -> None:
    mup = "parametrization={type: mup, base_d_model: 256, base_d_ff: 1024, learning_rate: 1e-2}"
    assert plan_of(tmp_path, "type: gradual", mup).warnings == []
    supar = mup.replace("mup", "supar")
    assert plan_of(tmp_path, "type: gradual, initial_sparsity: 0.75", supar).warnings == []


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("type: set, begin: 10 steps, end: 10 steps", "sparsity.end: it must lie after begin"),
        ("type: set, end: 1001 steps", "sparsity.end: it must lie after begin and within"),
        ("type: set, end: 2 epochs", "sparsity.end: 2 epochs is not a position in a phase"),
        ("type: set, every: 2 epochs", "sparsity.every: 2 epochs is not an interval"),
    ],
)
def test_positions_that_no_phase_has(tmp_path: Path, keys: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan_of(tmp_path, keys)


def test_a_plan_prints_the_moves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan_of(tmp_path, "type: static")
    arguments = ["plan", str(tmp_path / "recipe.yaml")]
    assert run_with([*arguments, "phases.0.sparsity={type: rigl, sparsity: 0.75}"]) == 0
    text = capsys.readouterr().out
    assert (
        "phase sparse: rigl moves the masks 7 times, every 204,800 tokens from 0 to 1,536,000; "
        "meanwhile 1.00507x the FLOPs of static masks" in text
    )
    assert run_with([*arguments, "--json"]) == 0
    assert "moving_masks" not in json.loads(capsys.readouterr().out)["phases"][0]
