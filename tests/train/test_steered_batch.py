"""A batch that follows the noise scale in a real run: exact tokens, same documents, same resume."""

import itertools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from feldspar.cli.main import run_with
from feldspar.core.errors import RunError, UserError
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.report.run_report import write_run_report
from feldspar.train.run import train
from feldspar.train.steering import Steering, StepTimes, require_agreement
from tests.train.conftest import RECIPE, metrics_of

BATCH = "{type: noise_scale, minimum: 2 sequences, maximum: 24 sequences, gain: 2}"
STAIRS_BACK = (
    "{type: by_tokens, levels: [{from: 0 tokens, sequences: 2}, {from: 64 tokens, sequences: 4}, "
    "{from: 64 tokens, sequences: 6}]}"
)
STEERED = (
    "noise_scale={coverage: all, half_life: 256 tokens}",
    f"phases.0.batch={BATCH}",
    "phases.0.length=8000 tokens",
    "phases.1.length=2 steps",
    "evaluation.every=100% of run",
    "checkpoints.every=10% of run",
    "checkpoints.keep.last=20",
)
TIMED = ("tokens_per_second", "model_flop_utilisation")


def run(recipe: Path, out: Path, *overrides: str) -> list[dict[str, Any]]:
    train(load_recipe(str(recipe), [*STEERED, *overrides]), out)
    return untimed(out)


def untimed(out: Path) -> list[dict[str, Any]]:
    """The records of a run, without what a clock measured."""
    return [
        {key: value for key, value in row.items() if key not in TIMED} for row in metrics_of(out)
    ]


@pytest.fixture(scope="module")
def steered_run(shards_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose first phase was steered."""
    folder = tmp_path_factory.mktemp("steered")
    (folder / "tiny.yaml").write_text(RECIPE.format(shards=shards_folder))
    run(folder / "tiny.yaml", folder / "run")
    return folder / "run"


@pytest.fixture
def started(steered_run: Path, tmp_path: Path) -> Path:
    """A copy of that run with its first five checkpoints only."""
    out = tmp_path / "part"
    shutil.copytree(steered_run, out)
    folders = sorted((out / "checkpoints").iterdir(), key=lambda folder: int(folder.name))
    for folder in folders[5:]:
        shutil.rmtree(folder)
    return out


def test_the_batch_follows_within_its_bounds_and_the_tokens_are_exact(steered_run: Path) -> None:
    steered = [record for record in untimed(steered_run) if record["phase"] == "short"]
    batches = [record["sequences"] for record in steered]
    assert batches[0] == 2 and batches[-2] > 2
    assert all(batch % 2 == 0 and batch <= 24 for batch in batches)
    # 8000 tokens in whole quanta of 2 sequences of 16 tokens.
    assert steered[-1]["tokens"] == 8000 == 16 * sum(batches)
    decided = [record for record in steered if "batch/action" in record]
    assert {record["batch/action"] for record in decided} >= {"raise", "hold"}
    by_place = {record["tokens"]: record["batch/sequences"] for record in decided}
    for before, after in itertools.pairwise(steered[:-1]):
        assert after["sequences"] == by_place.get(before["tokens"], before["sequences"])


def test_the_learning_rate_follows_the_batch(steered_run: Path) -> None:
    planned = plan_recipe(load_recipe(str(steered_run)).recipe)
    rate = planned.timeline.phases[0].learning_rate
    for record in [row for row in untimed(steered_run) if row["phase"] == "short"][:-1]:
        factor = min((record["sequences"] / 2) ** 0.5, 2)
        assert record["learning_rate"] == pytest.approx(factor * rate.at(record["tokens"]))


def test_resumed_it_takes_the_same_decisions(
    steered_run: Path, started: Path, recipe_file: Path
) -> None:
    assert run(recipe_file, started) == untimed(steered_run)


def test_rules_for_decisions_to_come_may_change(
    steered_run: Path, started: Path, recipe_file: Path
) -> None:
    with pytest.raises(UserError, match=r"since the run began: phases\.0\.batch\.quantum"):
        run(recipe_file, started, f"phases.0.batch={BATCH[:-1]}, quantum: 1 sequences}}")
    records = run(recipe_file, started, f"phases.0.batch={BATCH.replace('24', '6')}")
    events = map(json.loads, (started / "events.jsonl").read_text().splitlines())
    [at] = [event["tokens"] for event in events if event["event"] == "resumed"]
    past = [record for record in untimed(steered_run) if record["tokens"] <= at]
    assert records[: len(past)] == past
    assert max(row["sequences"] for row in past) > 6
    assert {row["sequences"] for row in records[len(past) :] if row["tokens"] <= 8000} <= {2, 4, 6}


def test_decisions_are_replayed_from_the_log(
    steered_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decided = [row for row in untimed(steered_run) if "batch/action" in row]
    assert run_with(["noise-scale", "replay", str(steered_run), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    replayed = printed["decisions"]
    steps = sum(row["phase"] == "short" for row in untimed(steered_run))
    assert printed["steps"]["short"] == pytest.approx(steps, abs=1)
    assert [row["batch/sequences"] for row in replayed] == [
        row["batch/sequences"] for row in decided
    ]
    assert all(row["agrees"] for row in replayed)
    assert run_with(["noise-scale", "replay", str(steered_run), "phases.0.batch.gain=0.001"]) == 0
    assert "differ from the run's" in capsys.readouterr().out


def test_a_log_that_was_tampered_with_does_not_replay(
    started: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = started / "metrics.jsonl"
    raised = next(row for row in metrics_of(started) if row.get("batch/action") == "raise")
    line = f'"batch/sequences": {raised["batch/sequences"]}'
    path.write_text(path.read_text().replace(line, '"batch/sequences": 22', 1))
    assert run_with(["noise-scale", "replay", str(started)]) == 1
    assert "the run: 22" in capsys.readouterr().out


def test_a_staircase_fitted_to_a_pilot_is_exact(
    started: Path, recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = metrics_of(started)
    for row in rows:
        row["noise_scale/total"] = 0.02 * row["tokens"] ** 0.75
    (started / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["noise-scale", "schedule", str(started), "--minimum", "2", "--maximum", "16"]
    assert run_with([*command, "--gain", "1", "--json"]) == 0
    fitted = json.loads(capsys.readouterr().out)
    assert fitted["growth"]["exponent"] == pytest.approx(0.75)
    assert fitted["growth"]["coefficient"] == pytest.approx(0.02)
    starts = [level["from_tokens"] for level in fitted["levels"]]
    reached = [(size / 0.02) ** (4 / 3) for size in (4, 6, 8, 12, 16)]
    assert starts == [0, *(math.ceil(tokens) for tokens in reached if tokens < 8000)]
    assert fitted["predicted"]["schedule"]["tokens"] < fitted["predicted"]["constant"]["tokens"]
    assert fitted["predicted"]["schedule"]["steps"] > fitted["predicted"]["constant"]["steps"]
    records = run(recipe_file, tmp_path / "fitted", fitted["override"])
    assert (records[-1]["tokens"], records[-1]["step"]) == (fitted["tokens"], fitted["steps"])
    levels = [level["sequences"] for level in fitted["levels"]]
    assert sorted({r["sequences"] for r in records if r["phase"] == "short"}) == levels


def test_the_page_draws_noise_scale_and_batch(steered_run: Path, tmp_path: Path) -> None:
    page = write_run_report([steered_run], tmp_path / "report.html").read_text()
    assert "Noise scale at the end: " in page and "; batch: " in page


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        ((f"phases.0.batch={BATCH[:-1]}}}", "noise_scale=null"), "add noise_scale"),
        (("phases.0.length=100 steps",), "not known in advance when the batch follows"),
        (("phases.0.batch.gain=0",), "gain"),
        (("phases.0.batch.minimum=48 sequences",), "minimum: 48 sequences is more than the max"),
        (("phases.0.batch.quantum=3 sequences",), "minimum: 2 sequences is not a multiple of 3"),
        (("phases.0.batch.minimum=1 sequences",), "at least two sequences a step"),
        (("phases.0.length=0 tokens",), "must be an absolute amount above 0"),
        (
            ("schedule.learning_rate=[{to: 1, over: 5 steps}, {to: 0, over: rest}]",),
            "unknown in advance",
        ),
        (("phases.1.optimizer_state=null",), "is unknown in advance"),
        ((f"phases.0.batch={STAIRS_BACK}",), "from 64 must be greater than 64"),
    ],
)
def test_what_cannot_be_steered_is_one_line(
    recipe_file: Path, tmp_path: Path, overrides: tuple[str, ...], what: str
) -> None:
    with pytest.raises(UserError) as error:
        run(recipe_file, tmp_path / "run", *overrides)
    assert what in str(error.value)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_other_processes_give_another_quantum_on_resume_only(
    recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = plan_recipe(load_recipe(str(recipe_file), list(STEERED)).recipe)
    with pytest.raises(UserError, match="2 sequences do not divide among 3 processes"):
        Steering(planned, world_size=3, resumed=False)
    steering = Steering(planned, world_size=3, resumed=True)
    kept = {"batch": {"sequences": 16, "last_change": 0}, "times": {}}
    steering.load_state({"steering": {"0": kept}})
    pace = steering.pace(0)
    assert pace is not None and (pace.quantum, pace.sequences) == (6, 12)
    tokens, read = 32, 2
    while (step := steering.next_step(tokens)) is not None and step.phase.index == 0:
        assert step.sequences % 6 == 0 and step.first_sequence == read
        tokens, read = step.position_after, read + step.sequences
    assert tokens == 8000 and 500 - read < 6


def test_processes_that_disagree_are_told_of_both_batches() -> None:
    require_agreement([8, 8])
    with pytest.raises(RunError, match="8 sequences on rank 0, 16 on rank 2"):
        require_agreement([8, 8, 16])


def test_the_overhead_of_a_step_is_the_line_through_its_times() -> None:
    times = StepTimes()
    for size in (8, 8, 8):
        times.add(size, 0.5 + 0.1 * size)
    assert times.overhead is None
    for size in (16, 16, 32, 32):
        times.add(size, 0.5 + 0.1 * size)
    assert times.overhead == pytest.approx(5)
    other = StepTimes()
    other.load_state(json.loads(json.dumps(times.state())))
    assert other.overhead == times.overhead
