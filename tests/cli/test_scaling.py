"""``feldspar scaling``: what outsiders rely on, through the real command."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from feldspar.cli.main import run_with
from feldspar.cli.scaling import split_numbers
from feldspar.plan.laws.law import CEREBRAS_GPT_POINTS
from tests.train.conftest import feldspar, recipe_file, shards_folder

__all__ = ["feldspar", "recipe_file", "shards_folder"]

SHORT = ["phases.1.length=2 steps", "evaluation.every=99 steps", "checkpoints.every=99 steps"]
TARGETS = [
    {"model.d_model": width, "model.d_ff": 2 * width, "phases.0.length": f"{steps} steps"}
    for width, steps in ((8, 2), (16, 12), (32, 50))
]


@pytest.fixture
def points_file(tmp_path: Path) -> Path:
    """The seven points of Cerebras-GPT, out of order."""
    path = tmp_path / "points.csv"
    rows = [f"{point.flops:g},{point.loss:g}" for point in reversed(CEREBRAS_GPT_POINTS)]
    path.write_text("\n".join(["flops,loss", *rows]) + "\n")
    return path


def test_fit_prints_what_outsiders_rely_on(
    points_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["scaling", "fit", str(points_file), "--predict", "1e23", "2e23", "--json"]
    assert run_with(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["form"] == "power"
    assert set(found["parameters"]) == {"exponent", "scale_flops", "constant"}
    held_out = found["held_out"]
    assert held_out["flops"] == 2.3e22 and held_out["observed"] == 1.572
    assert held_out["predicted"] == pytest.approx(1.5701, abs=5e-5)
    low, high = held_out["interval"]
    assert low < 1.572 < high
    assert [item["flops"] for item in found["predictions"]] == [1e23, 2e23]
    for item in found["predictions"]:
        assert item["interval"][0] < item["loss"] < item["interval"][1]
    assert found["residual_std"] == pytest.approx(0.0075, abs=5e-5)
    repeated = [*arguments[:3], "--predict", "1e23", "--predict=2e23", "--json"]
    assert run_with(repeated) == 0
    assert json.loads(capsys.readouterr().out) == found


def test_fit_tells_people_the_judgement_and_every_doubt(
    points_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "law"
    arguments = ["scaling", "fit", str(points_file), "--predict", "1e24", "--out", str(out)]
    assert run_with(arguments) == 0
    shown = capsys.readouterr().out
    assert re.search(r"\(f / c\)\^\(-a\) .*1\.5701 \(-0\.12 %\)  chosen", shown)
    assert re.search(r"\(f / c\)\^\(-a\) \+ b .*1\.5977 \(\+1\.63 %\)\n", shown)
    assert "the forms disagree there by +1.75 %" in shown
    assert "error -0.12 %, inside the interval" in shown and "3.65 times" in shown
    assert "warning: intervals from 7 points are rough" in shown
    assert "43.5 times the most that were fitted" in shown
    record = json.loads((out / "scaling.json").read_text())
    assert record["predictions"][0]["flops"] == 1e24
    assert (out / "scaling.svg").read_text().startswith("<svg")
    page = (out / "report.html").read_text()
    assert "1.5701" in page and "43.5 times" in page and "<svg" in page


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("flops,loss\n1e18,2\n1e19,1.9\n", [], "2 sizes are too few for a law"),
        ("flops,loss\n1e18,2\n1e19,1.9\n1e20,0\n", [], "loss: point 3 has loss 0"),
        ("flops,loss\n1e18,2\n1e19,1.9\n1e20,nan\n", [], "loss: point 3 has loss nan"),
        ("flops,loss\n0,2\n1e19,1.9\n1e20,1.8\n", [], "flops: point 1 has flops 0"),
        ("flops,loss\n1e18,2\n2e18,1.9\n3e18,1.8\n4e18,1.7\n", [], "span 0.60 decades"),
        ("flops,loss\n1e18,2\n1e19,1.9\n1e20,1.8\n", ["--predict", "0"], "flops: must be positive"),
        ("flops,loss\n1e18,2\n1e19,1.9\n1e20,1.8\n", ["--held-out", "2"], "held_out: 2 of 3"),
        ("tokens,loss\n1e18,2\n", [], "must have one column named flops"),
    ],
)
def test_bad_points_are_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, options: list[str], message: str
) -> None:
    path = tmp_path / "points.csv"
    path.write_text(text)
    assert run_with(["scaling", "fit", str(path), *options]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ") and not shown.out
    assert message in shown.err.splitlines()[0]


def test_doubles_are_averaged_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "points.csv"
    path.write_text("flops,loss\n1e18,2\n1e19,1.9\n1e20,1.82\n1e20,1.78\n")
    assert run_with(["scaling", "fit", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["held_out"]["observed"] == pytest.approx(1.8)
    assert "2 points have 1e+20 FLOPs (losses 1.78, 1.82): averaged" in found["warnings"]


def test_sources_of_both_kinds_are_refused(
    points_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with(["scaling", "fit", str(points_file), str(tmp_path)]) == 2
    assert "from one CSV file or from run folders" in capsys.readouterr().err
    assert run_with(["scaling", "fit", str(tmp_path)]) == 2
    assert f"{tmp_path} is not a run folder" in capsys.readouterr().err


def test_numbers_after_predict_are_flops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("1e20").mkdir()
    assert split_numbers(["a.csv", "1e22", "1e20"], [1e21]) == (["a.csv", "1e20"], [1e21, 1e22])
    assert split_numbers(["1e22"], []) == (["1e22"], [])


def run_arguments(recipe: Path, out: Path, *more: str) -> list[str]:
    targets = f"study.targets={json.dumps(TARGETS)}"
    return ["scaling", "run", str(recipe), *SHORT, targets, "--out", str(out), *more]


def test_run_trains_fits_and_writes(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "family"
    arguments = run_arguments(recipe_file, out, "--convention", "6P", "--predict", "1e13", "--json")
    assert run_with(["--quiet", *arguments]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["convention"] == found["basis"]["flops_convention"] == "6P"
    assert found["recipe"] == "tiny" and found["metric"] == "validation/loss"
    for size in found["sizes"]:
        assert size["flops"] == 6 * size["parameters"] * size["tokens"]
        assert (out / size["runs"][0] / "trial.json").is_file()
    assert found["points"] == [
        {"flops": size["flops"], "loss": size["loss"]} for size in found["sizes"]
    ]
    assert json.loads((out / "scaling.json").read_text()) == found
    assert "phases.0.length=50 steps" in (out / "report.html").read_text()

    runs = [str(out / run) for size in found["sizes"] for run in size["runs"]]
    assert run_with(["scaling", "fit", *runs, "--convention", "6P", "--json"]) == 0
    fitted = json.loads(capsys.readouterr().out)
    assert fitted["held_out"] == found["held_out"] and fitted["basis"] == found["basis"]
    _plans_know_the_law(recipe_file, out, found, capsys)


def _plans_know_the_law(
    recipe: Path, out: Path, found: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    plan = ["plan", str(recipe), *SHORT, "--law", str(out), "--json"]
    assert run_with(plan) == 0
    summary = json.loads(capsys.readouterr().out)
    expected, values = summary["expected_loss"], found["parameters"]
    assert expected["flops"] == summary["flops"]["6P"]
    law = (expected["flops"] / values["scale_flops"]) ** -values["exponent"] + values["constant"]
    assert expected["loss"] == pytest.approx(law)
    assert expected["interval"][0] < expected["loss"] < expected["interval"][1]
    assert run_with([*plan, "evaluation.holdout=[code]"]) == 2
    assert "holds for another data set" in capsys.readouterr().err


def test_run_refuses_what_it_cannot_train(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "none")
    plain = ["scaling", "run", str(recipe_file), "--out", out]
    for options, message in (
        ([], "0 sizes are too few for a law"),
        (["--widths", "16,x"], "--widths: whole numbers above 0"),
        (["--widths", "16,32,40"], "width 40 is not a multiple of head_dim"),
        (["--widths", "16,32,48,64", "--depth", "fixed"], "decades of FLOPs, too few"),
        (["--widths", "16,32,64", "--convention", "7P"], "not counted by '7P'"),
    ):
        assert run_with([*plain, *options]) == 2
        assert message in capsys.readouterr().err
    assert not Path(out).exists()


@pytest.mark.slow
def test_two_workers_give_the_same_law_and_go_on(
    recipe_file: Path, tmp_path: Path, feldspar: Any
) -> None:
    found = []
    for workers, out in (("2", "two"), ("1", "one"), ("2", "two")):
        arguments = run_arguments(recipe_file, tmp_path / out, "--workers", workers, "--json")
        result = feldspar(*arguments)
        assert result.returncode == 0, result.stderr
        found.append(json.loads(result.stdout))
    assert found[0] == found[2]
    assert found[0]["points"] == found[1]["points"]
    assert found[0]["held_out"] == found[1]["held_out"]
