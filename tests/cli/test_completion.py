"""A shell is told commands, options, recipes and runs while its user types."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from feldspar.cli.main import run_with


def completed(
    typed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    """The words that bash is told for a line whose last word is not finished."""
    monkeypatch.setenv("_FELDSPAR_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(typed.count(" ")))
    assert run_with([]) == 0
    return capsys.readouterr().out.split()


def make_run(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("name: mine\n")


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("feldspar quick", ["quickstart"]),
        ("feldspar train --overw", ["--overwrite"]),
        ("feldspar plan btlm/p", ["btlm/paper"]),
        ("feldspar train my", ["my-recipe.yaml"]),
        ("feldspar recipe show supar/s", ["supar/small"]),
        ("feldspar train ru", ["runs/first", "runs/second"]),
        ("feldspar evaluate runs/f", ["runs/first"]),
        ("feldspar report runs/first ", ["runs/first", "runs/second", "else"]),
        ("feldspar noise-scale replay e", ["else"]),
        ("feldspar evaluate no", []),
    ],
)
def test_bash_is_told(
    typed: str,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("runs/first", "runs/second", "else"):
        make_run(tmp_path / name)
    (tmp_path / "notes").mkdir()
    (tmp_path / "my-recipe.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert completed(typed, monkeypatch, capsys) == words


def test_completion_is_offered_and_loads_no_torch(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from feldspar.cli.main import run_with\n"
        "code = run_with([])\n"
        "assert not {'torch', 'transformers', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(code)\n"
    )
    asked = {"_FELDSPAR_COMPLETE": "complete_bash", "COMP_WORDS": "feldspar plan q"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | asked | {"COMP_CWORD": "2"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["quickstart"]), done.stderr
