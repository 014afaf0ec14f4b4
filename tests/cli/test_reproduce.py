"""The command itself: dry runs, bad input, and one real quick experiment."""

import json
from pathlib import Path

import pytest

from feldspar.cli.main import run_with
from tests.train.conftest import Command, feldspar

__all__ = ["feldspar"]


def test_a_dry_run_prints_every_run_and_its_cost(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_with(["reproduce", "btlm", "--quick", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "contexts: 2 runs" and lines[-1] == "dry run: nothing was trained"
    assert sum("parameters" in line and "minutes" in line for line in lines) == 8
    assert run_with(["reproduce", "btlm", "--quick", "--dry-run", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["total"]["runs"] == 8 and len(record["stages"]["ladder"]) == 6
    assert record["total"]["minutes"] > 0
    assert not list(tmp_path.iterdir())


def test_bad_input_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path / "no-archives"))
    assert run_with(["reproduce", "chinchilla"]) == 2
    assert run_with(["reproduce", "btlm", "--scale", "paper", "--quick"]) == 2
    assert run_with(["reproduce", "btlm", "--scale", "huge"]) == 2
    assert run_with(["reproduce", "btlm", "--quick", "--workers", "0"]) == 2
    assert run_with(["reproduce", "btlm", "--quick", "--out", "out"]) == 2
    said = capsys.readouterr().err
    assert "'chinchilla' is no paper" in said and "feldspar quickstart" in said
    assert "--quick shortens --scale small" in said
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    assert run_with(["reproduce", "supar", "--quick", "--out", str(foreign)]) == 2
    assert (foreign / "notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_smupar_quickly_for_real(feldspar: Command, tmp_path: Path) -> None:
    first = feldspar("reproduce", "supar", "--quick", "--json", cwd=tmp_path, timeout=1200)
    assert first.returncode == 0, first.stderr
    record = json.loads(first.stdout)
    claims = {claim["name"]: claim for claim in record["claims"]}
    assert claims["optimum-stays-supar"]["verdict"] == "mechanism shown"
    assert claims["optimum-moves-sp"]["verdict"] == "mechanism shown"
    assert claims["downstream"]["verdict"] == "needs scale"
    assert record["runs"] == 50 and record["seeds"] == [0]
    folder = tmp_path / "runs" / "reproduce" / "supar-quick"
    assert {path.name for path in folder.iterdir()} == {
        "claims.json",
        "claims.md",
        "experiment.json",
        "figure.svg",
        "report.html",
        "trials",
    }
    again = feldspar("reproduce", "supar", "--quick", cwd=tmp_path)
    assert again.returncode == 0 and "50 of 50" not in again.stderr
    told = json.loads((folder / "claims.json").read_text())
    assert told["claims"] == record["claims"]
