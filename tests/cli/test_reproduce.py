"""The command itself: dry runs, bad input, and one real quick experiment."""

import json
from pathlib import Path

import pytest

from feldspar.cli.main import run_with
from tests.train.conftest import Command, feldspar

__all__ = ["feldspar"]
RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_a_dry_run_prints_every_run_and_its_cost(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_with(["reproduce", "btlm", "--quick", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "contexts: 2 runs" and lines[-1] == "dry run: nothing was trained"
    assert sum("parameters" in line and "minutes" in line for line in lines) == 9
    assert run_with(["reproduce", "btlm", "--quick", "--dry-run", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["total"]["runs"] == 9 and len(record["stages"]["ladder"]) == 5
    assert record["total"]["minutes"] > 0
    assert not list(tmp_path.iterdir())


def test_bad_input_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_with(["reproduce", "chinchilla"]) == 2
    assert run_with(["reproduce", "btlm", "--scale", "paper", "--quick"]) == 2
    assert run_with(["reproduce", "btlm", "--scale", "huge"]) == 2
    assert run_with(["reproduce", "btlm", "--quick", "--workers", "0"]) == 2
    assert run_with(["reproduce", "btlm", "--stages", "ladder"]) == 2
    recorded = ["--keep", "docs/results/gns.json"]
    assert run_with(["reproduce", "gns", *recorded]) == 2
    assert run_with(["reproduce", "gns", "--quick", *recorded, "--stages", "reading"]) == 2
    assert run_with(["reproduce", "gns", *recorded, "--stages", "reading,batches"]) == 2
    said = capsys.readouterr().err
    assert "'chinchilla' is no paper" in said
    assert "--quick shortens --scale small" in said
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    assert run_with(["reproduce", "supar", "--quick", "--out", str(foreign)]) == 2
    assert (foreign / "notes.txt").read_text() == "mine"


def test_a_record_is_judged_again_and_a_quick_one_has_no_verdict(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    copy = tmp_path / "mine.json"
    record = json.loads((RESULTS / "supar.json").read_text())
    copy.write_text(json.dumps(record | {"claims": []}))
    assert run_with(["reproduce", "supar", "--judge", str(copy)]) == 0
    assert "mechanism shown  retuned-loss-mup" in capsys.readouterr().out
    assert json.loads(copy.read_text()) == record
    assert copy.with_suffix(".md").read_text() == (RESULTS / "supar.md").read_text()

    record = json.loads((RESULTS / "cerebras-gpt.json").read_text())
    copy.write_text(json.dumps(record | {"scale": "quick"}))
    assert run_with(["reproduce", "cerebras-gpt", "--judge", str(copy)]) == 0
    said = capsys.readouterr().out
    assert "no verdict       law-predicts-the-largest" in said
    assert "reproduced       published-law-scatter" in said, "no seed moves what is counted"
    assert "too few for a verdict" in said
    assert run_with(["reproduce", "supar", "--judge", str(copy)]) == 2
    assert run_with(["reproduce", "cerebras-gpt", "--judge", str(copy), "--quick"]) == 2
    said = capsys.readouterr().err
    assert "records another paper" in said and "leave out --quick" in said


@pytest.mark.slow
def test_smupar_quickly_for_real(feldspar: Command, tmp_path: Path) -> None:
    first = feldspar("reproduce", "supar", "--quick", "--json", cwd=tmp_path, timeout=1200)
    assert first.returncode == 0, first.stderr
    record = json.loads(first.stdout)
    claims = {claim["name"]: claim for claim in record["claims"]}
    assert claims["optimum-stays-supar"]["verdict"] == "no verdict"
    assert "octaves" in claims["optimum-moves-sp"]["ours"]
    assert claims["downstream"]["verdict"] == "needs scale"
    assert record["runs"] == 50 and record["seeds"] == [0]
    folder = tmp_path / "runs" / "reproduce" / "supar-quick"
    assert {path.name for path in folder.iterdir()} == {
        "claims.json",
        "claims.md",
        "claims.svg",
        "experiment.json",
        "report.html",
        "trials",
    }
    again = feldspar("reproduce", "supar", "--quick", cwd=tmp_path)
    assert again.returncode == 0 and "50 of 50" not in again.stderr
    assert "too few for a verdict" in again.stdout
    told = json.loads((folder / "claims.json").read_text())
    assert told["claims"] == record["claims"]
