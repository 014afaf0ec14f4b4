"""MediSwift's claims on time, on made-up losses; the timing of steps on tiny runs."""

import json
from pathlib import Path

import pytest

from feldspar.papers.kit.claims import Verdict
from feldspar.papers.kit.paper import Scale, values_of
from feldspar.papers.kit.step_time import step_seconds_in_turn
from feldspar.papers.mediswift.experiment import PAPER
from feldspar.papers.mediswift.time_arms import (
    ARMS,
    DENSE,
    HALF,
    SEEDS,
    SMALL_DENSE,
    SPARSE,
    TIMED,
    overrides_of,
    runs_by_arm,
    time_trials,
)
from feldspar.papers.mediswift.time_claims import (
    small_dense_in_time_claim,
    time_claim,
    time_figure,
    time_table,
)
from feldspar.papers.mediswift.time_to_loss import Pretraining, first_time, steps_saved, time_saved
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from tests.papers.conftest import finished, stated
from tests.train.conftest import recipe_file, shards_folder

__all__ = ["recipe_file", "shards_folder"]

CLAIMS = stated(PAPER)
STEP_SECONDS = {DENSE: 0.2, HALF: 0.15, SPARSE: 0.1, SMALL_DENSE: 0.05, "75%, unstructured": 0.16}


def arm(final: list[float], step_seconds: float = 0.1) -> Pretraining:
    """An arm of 100 steps that has 3 bits per byte half-way and ``final`` at the end, by seed."""
    curves = tuple((3.0, own) for own in final)
    return Pretraining((50, 100), curves, 102_400, step_seconds, 2 * step_seconds)


def arms() -> dict[str, Pretraining]:
    """The sparse arm ends lower than the dense one, at half its time a step."""
    return {
        DENSE: arm([2.0, 2.01, 2.02], 0.2),
        HALF: arm([2.0, 2.01, 2.02], 0.15),
        SPARSE: arm([1.95, 1.96, 1.97]),
        SMALL_DENSE: arm([2.05, 2.06, 2.07], 0.05),
    }


def test_time_until_a_loss_is_read_off_straight_lines() -> None:
    times, losses = [1.0, 2.0, 4.0], [3.0, 2.0, 1.0]
    assert first_time(times, losses, 3.5) == 1.0, "it was not measured any earlier"
    assert first_time(times, losses, 2.25) == 1.75
    assert first_time(times, losses, 1.5) == 3.0
    assert first_time(times, losses, 0.9) is None
    assert first_time([1.0, 2.0, 3.0], [3.0, 2.0, 2.5], 2.25) == 1.75, "the first time counts"


def test_time_saved_until_the_dense_loss() -> None:
    """The dense arm takes 20 s. The sparse one falls from 3 at 5 s to 1.95 at 10 s."""
    gain = time_saved(arm([1.95]), arm([2.0], 0.2))
    assert gain is not None and gain.mean == pytest.approx(1 - (5 + 5 / 1.05) / 20)
    steps = steps_saved(arm([1.95]), arm([2.0], 0.2))
    assert steps is not None and steps.mean == pytest.approx(1 - (50 + 50 / 1.05) / 100)
    claim = time_claim(arms(), STEP_SECONDS, CLAIMS)
    assert claim.verdict is Verdict.MECHANISM_SHOWN
    assert "75% 2.00" in claim.ours and "75%, unstructured 1.25" in claim.ours
    assert "small dense never has it" in claim.ours
    assert "against its 20 s" in claim.ours and "50% 25.00% less" in claim.ours


@pytest.mark.parametrize(
    "sparse",
    [
        arm([1.95, 1.96, 2.03]),  # one seed never has it
        arm([2.0, 2.01, 2.02], 0.2),  # as slow as dense
        arm([2.0, 2.01, 2.02], 0.197),  # within the margin for noise
    ],
)
def test_time_that_is_not_saved_is_not_shown(sparse: Pretraining) -> None:
    claim = time_claim(arms() | {SPARSE: sparse}, STEP_SECONDS, CLAIMS)
    assert claim.verdict is Verdict.NOT_BORNE_OUT


def test_width_against_density_in_the_same_time() -> None:
    claim = small_dense_in_time_claim(arms(), CLAIMS)
    assert claim.borne_out and "4.85% lower" in claim.ours
    narrow = arms() | {SMALL_DENSE: arm([1.95, 1.96, 1.97])}
    assert not small_dense_in_time_claim(narrow, CLAIMS).borne_out


def test_records_give_the_same_arms_back() -> None:
    own = arms()[SPARSE]
    assert Pretraining.from_dict(json.loads(json.dumps(vars(own)))) == own
    assert time_table(arms()).rows[0] == [DENSE, "102,400", "0.200", "0.400", "20.0", "2.0100"]
    figure = time_figure(arms(), {DENSE: 100.0}, {DENSE: [0.8, 0.9]})
    assert figure.svg.count("<svg") == 1 and "% right answers" in figure.svg


def test_all_arms_of_a_seed_come_before_the_next_seed() -> None:
    runs = finished(time_trials(Scale.SMALL), lambda values: values["seed"])
    assert [values_of(run.trial)["seed"] for run in runs[: len(ARMS)]] == [0] * len(ARMS)
    for name, own in runs_by_arm(runs, ARMS).items():
        assert [run.score for run in own] == list(range(SEEDS[Scale.SMALL]))
        assert all(values_of(run.trial)["choose.arm"] == ARMS[name] for run in own)


def test_small_dense_has_the_block_weights_that_75_percent_keep() -> None:
    kept = {}
    for name in TIMED:
        planned = plan_recipe(load_recipe("mediswift/time", list(overrides_of(name))).recipe)
        rows = [row for row in planned.shapes.rows if row.role == "hidden"]
        masked = planned.shapes.parameters - planned.active_parameters(0)
        kept[name] = sum(row.count for row in rows) - masked
    assert kept[SMALL_DENSE] == kept[SPARSE] == kept["75%, unstructured"] == kept[DENSE] / 4
    assert kept[HALF] == kept[DENSE] / 2


def test_steps_are_timed_in_turn(recipe_file: Path) -> None:
    """Each arm has as many times as turns. A phase of one step is over after the warm-up."""
    arms = {"one": [], "two": ["phases.0.length=1 steps", "phases.1.length=6 steps"]}
    seconds = step_seconds_in_turn(str(recipe_file), arms, 3)
    assert {name: len(own) for name, own in seconds.items()} == {"one": 3, "two": 3}
    assert all(value > 0 for own in seconds.values() for value in own)
