"""The command line of vision: plan, train, evaluate, and one line for what is wrong."""

import json
from pathlib import Path

import pytest

from feldspar.cli.main import run_with


def test_from_plan_to_evaluation(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run_with(["vision", "train", str(recipe_file), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "264 images" not in text and "images      264 in 18 steps" in text
    assert "phase fine: 192 images (2 epochs), 12 steps of 16 at 24 pixels" in text
    assert not out.exists()
    assert run_with(["vision", "plan", str(recipe_file)]) == 0
    assert "images      264 in 18 steps" in capsys.readouterr().out
    short = ["phases.0.length=1 steps", "phases.1.length=1 steps", "--out", str(out)]
    train = ["vision", "train", str(recipe_file), *short]
    assert run_with(["--quiet", *train]) == 0
    assert "28 images in 2 steps, top-1 " in capsys.readouterr().out
    assert run_with([*train, "--json"]) == 0
    captured = capsys.readouterr()
    trained = json.loads(captured.out)
    assert trained["images"] == 28
    assert "is complete: nothing to do" in captured.err
    assert run_with(["--quiet", "vision", "evaluate", str(out), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["images"] == 24
    assert measured["validation/top1"] == trained["validation/top1"]
    assert run_with(["--quiet", "vision", "evaluate", str(out), "--raw"]) == 0
    assert "validation/top1" in capsys.readouterr().out
    exported = tmp_path / "stripes.pt2"
    export = ["--quiet", "vision", "export", str(out), "--out", str(exported), "--format", "pt2"]
    assert run_with([*export, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["images"] == [1, 24, 24] and told["difference"] < 1e-4
    assert run_with([*export, "--overwrite"]) == 0
    assert f"{exported}: images of 1 x 24 x 24" in capsys.readouterr().out
    assert run_with(["--quiet", "export", str(out), "--out", str(tmp_path / "folder")]) == 2
    assert "feldspar vision --help" in capsys.readouterr().err


def test_the_plan_of_a_paper_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with(["vision", "plan", "revbifpn/paper", "choose.size=S6", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["parameters"]["total"] == 142_307_972
    assert run_with(["vision", "plan", "revbifpn/paper"]) == 0
    text = capsys.readouterr().out
    assert "308,039,716 (paper counter)" in text and "(reversible)" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "{recipe}", "images.train=/nowhere/train"], "there is no file train-images"),
        (["train", "{recipe}", "--out", "{recipe}"], "is a file; a run needs a folder"),
        (["train", "{recipe}", "model.classes=4"], "model.classes: the network tells 4 classes"),
        (["train", "{recipe}", "phases.0.resolution=30"], "not a multiple of 8"),
        (["evaluate", "{folder}"], "is not a run folder"),
        (["export", "{folder}", "--out", "{folder}/new.onnx"], "is not a run folder"),
        (["plan", "btlm/small"], "is not a recipe of a vision model"),
    ],
)
def test_bad_input_ends_in_a_line_and_exit_code_two(
    recipe_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    given = [word.format(recipe=recipe_file, folder=tmp_path) for word in arguments]
    assert run_with(["--quiet", "vision", *given]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[0]
    assert not any("Traceback" in line for line in lines)


@pytest.mark.parametrize("command", ["train", "plan"])
def test_a_language_models_command_names_the_other(
    recipe_file: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run_with(["--quiet", command, str(recipe_file)]) == 2
    assert "feldspar vision --help" in capsys.readouterr().err


def test_a_resolved_recipe_is_shown_with_its_origins(
    recipe_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with(["config", "show", str(recipe_file)]) == 0
    assert "label_smoothing: 0.1" in capsys.readouterr().out
