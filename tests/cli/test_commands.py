"""The command line's frame: help everywhere, no torch where none is needed, one-line errors."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from feldspar import __version__
from feldspar.cli.main import application, run_with
from feldspar.core.errors import InternalError, RunError, SetupError, UserError
from feldspar.recipe.shipped import shipped_names


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every command and group."""
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


PATHS = list(commands(typer.main.get_command(application())))


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_command_has_help(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with([*path, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Usage:" in shown and len(shown.splitlines()) > 4


def test_the_commands_of_the_design_exist() -> None:
    names = {" ".join(path) for path in PATHS}
    assert {"plan", "train", "config show", "config explain", "config schema"} <= names
    assert {"recipe list", "recipe show", "quickstart", "doctor"} <= names
    assert max(len(path) for path in PATHS) <= 2, "verbs have two levels at most"


WITHOUT_TORCH = [
    ["--help"],
    ["--version"],
    *([*path, "--help"] for path in PATHS if len(path) == 1),
    ["config", "explain", "model"],
    ["config", "show", "quickstart"],
    ["config", "schema"],
    ["recipe", "list"],
    ["plan", "no/such"],
]
MISSING = [
    ["evaluate", "runs/none"],
    ["export", "runs/none", "--out", "exported"],
    ["release", "runs/none"],
    ["release", "runs/none", "--verify"],
    ["report", "runs/none"],
    ["noise-scale", "replay", "runs/none"],
    ["noise-scale", "schedule", "runs/none", "--minimum", "8", "--maximum", "16"],
    ["noise-scale", "branch", "runs/none", "--tokens", "100", "--out", "branches"],
    ["vision", "evaluate", "runs/none"],
    ["import", "none", "--out", "imported"],
    ["scaling", "fit", "runs/none"],
    ["train", "runs/none"],
    ["transfer", "none.yaml"],
    ["tokens", "show", "none"],
]
ONE_AFTER_ANOTHER = """
import json, sys
from feldspar.cli.main import run_with
for arguments in json.loads(sys.argv[1]):
    sys.stderr.write(f"\\n{arguments}\\n")
    print(json.dumps([arguments, run_with(arguments)]), file=sys.__stderr__)
    heavy = {"torch", "transformers", "pyarrow", "matplotlib"} & set(sys.modules)
    assert not heavy, f"{arguments} loads {heavy}"
"""


@pytest.mark.parametrize(
    ("commands", "code", "said"), [(WITHOUT_TORCH, 0, ""), (MISSING, 2, "error: ")]
)
def test_torch_is_not_loaded_for_what_needs_none(
    commands: list[list[str]], code: int, said: str, tmp_path: Path
) -> None:
    """All in one process, since none of them may load it."""
    command = [sys.executable, "-c", ONE_AFTER_ANOTHER, json.dumps(commands)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for arguments in commands:
        _, _, after = result.stderr.partition(f"\n{arguments}\n")
        assert after.startswith(said), arguments
        expected = 2 if "no/such" in arguments else code
        assert json.dumps([arguments, expected]) in after, arguments


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["plan", "btml/paper"], "error: 'btml/paper' is neither a file nor a shipped recipe; did"),
        (["plan", "btlm/paper", "model.d_modle=1"], "error: model.d_modle: unknown key; did you"),
        (["plan", "btlm/paper", "model"], "error: 'model' is not an override"),
        (["plan", "cerebras-gpt/paper", "choose.size=112M"], "error: choose.size: '112M' is not"),
        (["config", "explain", "modle"], "error: modle: no such key; did you mean 'model'"),
        (["config", "show", "missing.yaml"], "error: the recipe file missing.yaml does not exist"),
        (["recipe", "show", "quickstrat"], "error: 'quickstrat' is neither a file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with(arguments) == 2
    out, err = capsys.readouterr()
    first, *details = err.splitlines()
    assert first.startswith(line)
    assert all(detail.startswith("  ") for detail in details), "only where, found, allowed, do"
    assert out == "" and "Traceback" not in err


@pytest.mark.parametrize(
    "arguments", [["plam"], ["plan"], ["plan", "btlm/paper", "--tabel"], ["config", "nothing"]]
)
def test_bad_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("x"), 2),
        (SetupError("x"), 3),
        (RunError("x"), 4),
        (InternalError("x"), 70),
        (ZeroDivisionError("x"), 70),
        (BrokenPipeError("of a worker, not of the output"), 70),
        (KeyboardInterrupt(), 130),
        (SystemExit(143), 143),
        (typer.Exit(1), 1),
    ],
)
def test_exit_codes(
    error: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("feldspar.recipe.explain.explain", failing)
    assert run_with(["config", "explain", "model"]) == code
    assert ("Traceback" in capsys.readouterr().err) is (code == 70)


def test_a_full_disk_under_the_output_is_no_fault() -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "feldspar", "recipe", "show", "quickstart"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.returncode == 3
    assert result.stderr.startswith("error: no space left on the disk while writing the output")


@pytest.mark.parametrize("form", [["--table"], ["--json"]])
def test_a_reader_that_has_seen_enough_is_no_fault(form: list[str]) -> None:
    command = [sys.executable, "-m", "feldspar", "plan", "btlm/paper", *form]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_plan_for_people_and_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with(["plan", "cerebras-gpt/paper", "choose.size=590M", "--table"]) == 0
    shown = capsys.readouterr().out
    for part in ("590,310,912", "11,806,113,792", "21,836 (warm-up 693)", "5.51e+19 by detailed"):
        assert part in shown
    assert "blocks.17.feed_forward.output.weight" in shown
    assert run_with(["plan", "cerebras-gpt/paper", "--json", "--table"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["parameters"]["total"] == 111_050_496
    assert values["steps"] == 9037 and len(values["tensors"]) == 10 * 12 + 4


def test_a_plan_that_does_not_fit_names_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "extends: quickstart\nname: mine\nschedule:\n"
        "  learning_rate: [{to: 1, over: 1e12 tokens}]\n"
    )
    assert run_with(["plan", str(path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: schedule.learning_rate.0: the segment ends after")
    assert f"  where: {path}:4\n" in err


def test_config_show_is_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with(["config", "show", "btlm/paper", "seed=3"]) == 0
    path = tmp_path / "shown.yaml"
    path.write_text(capsys.readouterr().out)
    assert run_with(["plan", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == 627_714_293_760


def test_config_explain_and_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with(["config", "explain", "phases.0.batch"]) == 0
    assert capsys.readouterr().out.startswith("phases.N.batch: ")
    assert run_with(["config", "schema"]) == 0
    assert "properties" in json.loads(capsys.readouterr().out)
    assert run_with(["config", "schema", "documents"]) == 0
    assert "model" not in json.loads(capsys.readouterr().out)["properties"]


def test_recipes_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with(["recipe", "list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == shipped_names()
    assert run_with(["recipe", "list", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == shipped_names()
    assert run_with(["recipe", "show", "btlm/small"]) == 0
    assert "name: btlm-small" in capsys.readouterr().out
