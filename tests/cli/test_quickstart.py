"""What the quickstart keeps of calls that were stopped; the whole runs in ``make quickstart``."""

import time
from pathlib import Path

import pytest

from feldspar.cli.main import run_with
from feldspar.recipe.load import load_recipe
from feldspar.release.quickstart import Quickstart


def test_seconds_add_up_over_calls_that_were_stopped(tmp_path: Path) -> None:
    loaded = load_recipe("quickstart")
    with pytest.raises(SystemExit), Quickstart(loaded, tmp_path).stage("training"):
        time.sleep(0.05)
        raise SystemExit(143)
    again = Quickstart(loaded, tmp_path)
    before = again.seconds["training"]
    assert before >= 0.05
    with again.stage("training"):
        time.sleep(0.01)
    assert again.seconds["training"] >= before + 0.01
    other = load_recipe("quickstart", ["seed=1"])
    assert Quickstart(other, tmp_path).seconds == {}


def test_a_foreign_folder_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    assert run_with(["quickstart", "--out", str(tmp_path)]) == 2
    assert "holds something that is not a run" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.tex"]
