"""The help in sections, ``--quiet`` and ``--json`` anywhere, one name for the output."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from feldspar.cli.command_group import FORMER_NAME, SECTIONS
from feldspar.cli.main import application, run_with

COMMAND_LINE: Any = typer.main.get_command(application())
WITHOUT_JSON = {
    "chat": "a conversation, line by line",
    "recipe show": "prints a recipe, in YAML",
    "config show": "prints a recipe, in YAML",
    "config schema": "prints JSON as it is",
    "config explain": "prints the text of a docstring",
    "release": "prints the name of the folder",
    "report": "prints the name of the page",
}
"""Commands that print no figures."""


def leaves(group: Any = COMMAND_LINE, path: tuple[str, ...] = ()) -> list[tuple[str, Any]]:
    """Return every command that is no group, with its words."""
    found = []
    for name, command in group.commands.items():
        words = (*path, name)
        inner = hasattr(command, "commands")
        found += leaves(command, words) if inner else [(" ".join(words), command)]
    return found


LEAVES = dict(leaves())


def options(command: Any) -> set[str]:
    return {name for option in command.params for name in option.opts}


def test_every_command_takes_quiet_and_those_with_figures_take_json() -> None:
    assert len(LEAVES) > 40
    assert [name for name, command in LEAVES.items() if "--quiet" not in options(command)] == []
    lacking = {name for name, command in LEAVES.items() if "--json" not in options(command)}
    assert lacking <= set(WITHOUT_JSON)


@pytest.mark.parametrize(
    "words",
    [["import", "model"], ["export", "run"], ["vision", "export", "run"], ["adapt", "model"]],
)
def test_the_former_name_of_out_means_the_same_and_no_help_shows_it(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = LEAVES[" ".join(words[:-1])]
    needed = ["--tokenizer", "t"] if words[0] == "adapt" else []
    for name in ("--out", FORMER_NAME):
        given = command.make_context(words[-2], [words[-1], *needed, name, "made"]).params
        assert str(given["to"]) == "made"
    assert run_with([*words, *needed]) == 2
    assert "Missing option '--out'" in capsys.readouterr().err
    assert run_with([*words[:-1], "--help"]) == 0
    assert FORMER_NAME not in capsys.readouterr().out.replace("--tokenizer", "")


def test_no_command_names_its_output_otherwise() -> None:
    for name, command in LEAVES.items():
        shown = {
            one
            for each in command.params
            if not getattr(each, "hidden", False)
            for one in each.opts
        }
        assert not shown & {FORMER_NAME, "--output", "--target", "--dest"}, name


def test_an_earlier_name_is_refused_with_the_new_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with(["tokenizer", "train", "quickstart", "--output", "here"]) == 2
    assert "--out" in capsys.readouterr().err.replace("--output", "")


@pytest.mark.parametrize(
    "words",
    [["--json", "recipe", "list"], ["recipe", "--json", "list"], ["recipe", "list", "--json"]],
)
def test_json_may_stand_anywhere(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with(words) == 0
    assert "quickstart" in json.loads(capsys.readouterr().out)


def test_a_command_without_json_refuses_it_wherever_it_stands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words in (["--json", "chat", "model"], ["chat", "model", "--json"]):
        assert run_with(words) == 2
        assert "No such option: --json" in capsys.readouterr().err


@pytest.mark.parametrize("place", [0, 1, 2, 3, None])
def test_quiet_may_stand_anywhere_and_leaves_out_the_next_steps(
    place: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["recipe", "copy", "quickstart", str(tmp_path / "my recipe.yaml")]
    if place is not None:
        words.insert(place, "--quiet")
    assert run_with(words) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'my recipe.yaml'}\n"
    if place is not None:
        assert err == ""
        return
    first, second = err.splitlines()
    assert first.startswith(f"next: feldspar plan '{tmp_path}/my recipe.yaml'   # ")
    assert second.startswith(f"      feldspar train '{tmp_path}/my recipe.yaml'  # ")


def test_next_steps_are_not_printed_for_machines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with(["recipe", "copy", "quickstart", str(tmp_path / "a.yaml"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"recipe": str(tmp_path / "a.yaml")} and err == ""


def test_each_command_stands_in_one_section(capsys: pytest.CaptureFixture[str]) -> None:
    named = [name for names in SECTIONS.values() for name in names]
    assert len(named) == len(set(named)) and set(COMMAND_LINE.commands) <= set(named)
    assert run_with(["--help"]) == 0
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if line == "Plan and tune:"]
    assert "..." not in shown.partition("Begin:")[2]
    assert all(len(line) <= 80 for line in shown.splitlines())
