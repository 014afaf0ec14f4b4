"""``feldspar evaluate --problems``: what the command prints, and what it refuses."""

import json
from pathlib import Path

import pytest

from feldspar.cli.main import run_with
from tests.evaluate.test_infilling_command import run

__all__ = ["run"]


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "problems.jsonl"
    easy = {"task_id": "easy", "prompt": "def f(): return 1\n", "entry_point": "f"}
    lines = [easy | {"test": f"def check(f):\n    assert f() == {n}", "task_id": n} for n in "1"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_figures_of_a_file(run: Path, problems: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--quiet", "evaluate", str(run), "--problems", str(problems), "--max-new-tokens", "4"]
    more = ["--samples", "3", "--k", "1,3", "--temperature", "0.8", "--seed", "1"]
    assert run_with([*asked, *more, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == 1 and found["samples"] == 3 and set(found["pass_at"]) == {"1", "3"}
    assert sum(found["outcomes"].values()) == 3
    assert run_with([*asked, *more]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["measure", "value", "standard", "error"]
    assert [line.split()[0] for line in printed[1:3]] == ["pass@1", "pass@3"]
    assert printed[3].startswith("1 problems, 3 samples of each: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--problems", "humaneval", "--infilling"], "--problems goes with"),
        (["--samples", "3"], "go with --problems only"),
        (["--problems", "humaneval", "--k", "1,2"], "numbers from 1 to --samples"),
        (["--problems", "humaneval", "--k", "one"], "numbers from 1 to --samples"),
        (["--problems", "humaneval", "--samples", "2", "--temperature", "0"], "2 equal samples"),
        (["--problems", "nowhere.jsonl"], "neither a file nor a shipped set"),
    ],
)
def test_what_does_not_fit_is_refused(
    run: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with(["--quiet", "evaluate", str(run), *options]) == 2
    assert message in capsys.readouterr().err
