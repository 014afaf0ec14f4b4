"""From a search on the proxy to values that another shape is trained with, and their check."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from feldspar.cli.main import run_with
from feldspar.core.errors import UserError
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.study import Range, StudySettings
from feldspar.study.sweep import SweepPoint
from feldspar.study.transfer import run_transfer, verification_rates, write_best
from feldspar.study.transfer_report import summary, write_transfer
from feldspar.train.run import train
from tests.train.conftest import metrics_of

RATE = "parametrization.learning_rate"
STD = "parametrization.init_std"
SHORT = ("phases.0.length=4 steps", "phases.1.length=2 steps")
WIDE = {"model.d_model": 64, "model.d_ff": 128}


def study(**keys: Any) -> str:
    """An override that sets the study."""
    return f"study={json.dumps(keys)}"


@pytest.fixture
def grid_study() -> str:
    """Three rates on the proxy, then on a wider model, with two seeds."""
    rate = {"low": 0.0078125, "high": 0.03125, "points": 3}
    return study(vary={RATE: rate, STD: [0.05]}, seeds=2, targets=[WIDE])


def test_a_transfer_is_searched_written_verified_and_reported(
    recipe_file: Path, tmp_path: Path, grid_study: str
) -> None:
    out = tmp_path / "out"
    found = run_transfer(str(recipe_file), (*SHORT, grid_study), out)
    write_transfer(found)
    assert len(found.searched) == 3
    assert found.best.score == min(point.score for point in found.searched)
    assert found.proxy is not None
    assert [shape.name for shape in found.targets] == ["d_model=64,d_ff=128"]
    assert found.proxy.curve.rates == (2**-7, 2**-6, 2**-5)

    # The proxy's sweep holds the search's runs: three points, two seeds, no run twice.
    assert len(list((out / "proxy").iterdir())) == 6
    own = {point.values[RATE]: point for point in found.proxy.points}
    for point in found.searched:
        assert own[point.values[RATE]].scores[0] == point.score

    data = json.loads((out / "transfer.json").read_text())
    assert data == json.loads(json.dumps(summary(found)))
    assert data["verification"]["learning_rates"] == [2**-7, 2**-6, 2**-5]
    for target, shape in zip(data["verification"]["targets"], found.targets, strict=True):
        assert target["losses"] == list(shape.curve.losses)
        first, second = shape.points[0].scores
        assert target["losses"][0] == pytest.approx((first + second) / 2)
        transferred = target["losses"][target_index(data, data["verification"]["transferred"])]
        excess = 100 * (transferred / min(target["losses"]) - 1)
        assert target["excess_percent"] == pytest.approx(excess)
        assert target["moved_steps"] == target_index(data, target["optimum"]) - target_index(
            data, data["verification"]["proxy"]["optimum"]
        )
        wide = load_recipe(str(shape.points[0].results[0].folder)).recipe
        assert wide.model.d_model == target["overrides"]["model.d_model"]
    page = (out / "report.html").read_text()
    assert "Loss against learning rate" in page and "d_model=64,d_ff=128" in page
    assert (out / "learning_rate.svg").read_text().startswith("<svg")


def target_index(data: dict[str, Any], rate: float) -> int:
    return data["verification"]["learning_rates"].index(rate)


def test_the_best_values_are_a_recipe_that_trains(recipe_file: Path, tmp_path: Path) -> None:
    vary = {RATE: {"low": 1e-3, "high": 1e-1}, STD: {"low": 0.02, "high": 0.1}}
    overrides = (*SHORT, study(vary=vary, search={"trials": 2}), "optimizer.weight_decay=0.02")
    found = run_transfer(str(recipe_file), overrides, tmp_path / "out")
    assert found.verdict is None and found.proxy is None
    best = load_recipe(str(tmp_path / "out" / "best.yaml"), list(SHORT))
    assert best.recipe.name == "tiny-best"
    assert best.recipe.parametrization.learning_rate == found.best.values[RATE]
    assert best.recipe.parametrization.init_std == found.best.values[STD]
    assert best.recipe.optimizer.weight_decay == 0.02
    train(best, tmp_path / "run")
    ours = [step["train/loss"] for step in metrics_of(tmp_path / "run")]
    theirs = [step["train/loss"] for step in metrics_of(found.best.results[0].folder)]
    assert ours == theirs


CHOICES = {
    "parametrization": {
        "sp": {},
        "mup": {"parametrization": {"type": "mup", "base_d_model": 16, "base_d_ff": 32,
                                    "learning_rate": 0.5, "init_std": 0.07}},
    },
    "size": {"small": {}, "large": {"model.d_model": 64, "model.d_ff": 128, RATE: 0.25}},
}  # fmt: skip


def test_no_choice_of_the_recipe_replaces_the_best_values(
    recipe_file: Path, tmp_path: Path
) -> None:
    chosen = {"parametrization": "sp", "size": "large"}
    with recipe_file.open("a") as file:
        file.write(f"choices: {json.dumps(CHOICES)}\nchoose: {json.dumps(chosen)}\n")
    vary = {RATE: [0.01], "choose.parametrization": ["mup"], "phases.0.batch.sequences": [4]}
    overrides = ("choose.size=small", study(vary=vary), "phases.0.length=2 steps")
    loaded = load_recipe(str(recipe_file), list(overrides))
    values = {RATE: 0.01, "choose.parametrization": "mup", "phases.0.batch.sequences": 4}
    result: Any = type("Result", (), {"score": 2.5})
    path = tmp_path / "best.yaml"
    write_best(path, str(recipe_file), overrides, SweepPoint(values, (result,)), loaded)
    best = load_recipe(str(path)).recipe
    assert best.choose == {"parametrization": "mup", "size": "small", "transfer": "best"}
    assert best.parametrization.type == "mup"
    assert best.parametrization.learning_rate == 0.01
    assert best.parametrization.init_std == 0.07
    assert best.phases[0].batch.sequences == 4
    # The length was the proxy's.
    assert best.phases[0].length == load_recipe(str(recipe_file)).recipe.phases[0].length
    large = load_recipe(str(path), ["choose.size=large"]).recipe
    assert large.model.d_model == 64
    assert large.parametrization.learning_rate == 0.01


def test_a_shipped_recipe_is_extended_by_its_name(tmp_path: Path) -> None:
    overrides = (study(vary={RATE: [0.01]}),)
    loaded = load_recipe("cerebras-gpt/small", list(overrides))
    result: Any = type("Result", (), {"score": 2.5})
    path = tmp_path / "best.yaml"
    point = SweepPoint({RATE: 0.01}, (result,))
    write_best(path, "cerebras-gpt/small", overrides, point, loaded)
    assert 'extends: "cerebras-gpt/small"' in path.read_text()
    assert load_recipe(str(path)).recipe.parametrization.learning_rate == 0.01


def test_the_rates_of_the_verification() -> None:
    around = (0.25, 0.5, 1.0, 2.0, 4.0)
    assert verification_rates(StudySettings(), 1.0) == around
    drawn = StudySettings(vary={RATE: Range(low=0.1, high=10)})
    assert verification_rates(drawn, 1.0) == around
    grid = StudySettings(vary={RATE: Range(low=0.125, high=2, points=5)})
    assert verification_rates(grid, 0.5) == (0.125, 0.25, 0.5, 1, 2)
    listed = StudySettings(vary={RATE: (0.3, 0.1, 0.2)})
    assert verification_rates(listed, 0.1) == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("keys", "arguments", "what"),
    [
        ({}, [], "study.vary: the recipe does not say what to search"),
        ({"vary": {RATE: [1e-3]}}, ["--trials", "0"], "study.search.trials"),
        ({"vary": {RATE: [1e-3]}}, ["--workers", "0"], "--workers: at least one"),
        (
            {"vary": {"model": {"low": 1, "high": 2}}},
            [],
            "study.vary.model: the key does not accept",
        ),
        ({"vary": {RATE: [1e-3]}, "score": "validation/los"}, [], "did you mean 'validation/loss'"),
        ({"vary": {RATE: [1e-3]}, "targets": [{"model.d_model": 33}]}, [], "study.targets.0: "),
        ({"vary": {RATE: [1e-3]}, "targets": [{"model.d_modle": 3}]}, [], "study.targets.0: "),
        ({"vary": {RATE: [1e-3]}, "targets": [WIDE, {RATE: 1}]}, [], "study.targets.1: "),
        ({"vary": {RATE: [1e-3]}, "targets": [WIDE, WIDE]}, [], "study.targets.1: another target"),
        (
            {"vary": {RATE: [1e-3]}, "targets": [{}]},
            [],
            "study.targets.0: the target is the same model as the proxy",
        ),
    ],
)
def test_bad_input_is_one_line_before_anything_runs(
    recipe_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    keys: dict[str, Any],
    arguments: list[str],
    what: str,
) -> None:
    out = tmp_path / "out"
    command = ["--quiet", "transfer", str(recipe_file), study(**keys), "--out", str(out)]
    assert run_with([*command, *arguments]) == 2
    (first, *_) = capsys.readouterr().err.splitlines()
    assert first.startswith("error: ") and what in first
    assert not out.exists()


def test_a_score_that_only_the_runs_can_refuse_costs_nothing(
    recipe_file: Path, tmp_path: Path
) -> None:
    """Sources too short for one sequence are not validated; their runs are kept all the same."""
    vary = {RATE: [1e-3, 1e-2]}
    run_transfer(str(recipe_file), (*SHORT, study(vary=vary)), tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("trial.json")}
    with pytest.raises(UserError, match=r"study.score"):
        run_transfer(str(recipe_file), (*SHORT, study(vary=vary, score="loss")), tmp_path)
    other = study(vary=vary, score="validation/prose/loss")
    found = run_transfer(str(recipe_file), (*SHORT, other), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("trial.json")} == times
    best = found.best.results[0]
    assert best.score == best.metrics["validation/prose/loss"]


@pytest.mark.slow
def test_a_killed_transfer_goes_on(recipe_file: Path, tmp_path: Path) -> None:
    """The real command, killed in the middle by a signal that no process can answer."""
    vary = {RATE: {"low": 1e-3, "high": 1e-1, "points": 3}}
    overrides = [study(vary=vary, targets=[WIDE])]
    out = tmp_path / "out"
    command = [sys.executable, "-m", "feldspar", "transfer", str(recipe_file), *overrides]
    command += ["--workers", "2", "--json", "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    killed = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert killed.stderr is not None
    while not (line := killed.stderr.readline()).startswith("1 of 3 trials"):
        assert line, "the command ended before its first trial"
    killed.kill()
    killed.stderr.read()  # ends when the workers have gone, which hold the other end too
    assert killed.wait() == -signal.SIGKILL
    done = {path.parent: (path.parent / "events.jsonl").read_bytes() for path in trials(out)}
    assert 1 <= len(done) < 3 and not (out / "best.yaml").exists()
    again = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert {run: (run / "events.jsonl").read_bytes() for run in done} == done
    data = json.loads(again.stdout)
    assert len(data["search"]["trials"]) == 3 and len(data["verification"]["targets"]) == 1

    whole = run_transfer(str(recipe_file), overrides, tmp_path / "whole")
    assert [point.score for point in whole.searched] == [
        trial["score"] for trial in data["search"]["trials"]
    ]
    assert list(whole.targets[0].curve.losses) == data["verification"]["targets"][0]["losses"]


def trials(out: Path) -> list[Path]:
    return sorted(out.rglob("trial.json"))
