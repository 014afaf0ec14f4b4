"""Every command that help, docs and messages name is one that the command line takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feldspar.cli.main import run_with
from feldspar.recipe import load_any_recipe, load_recipe, load_vision_recipe
from feldspar.recipe.explain import explain
from feldspar.reproduce import paper_named
from tests.examples.collect import (
    COMMAND_LINE,
    Example,
    help_examples,
    message_examples,
    page_examples,
)

EXAMPLES = sorted(
    {*help_examples(), *page_examples(), *message_examples()},
    key=lambda example: (example.place, example.text),
)
MINE = """\
extends: cerebras-gpt/small
name: mine
"""


@pytest.fixture(scope="module", autouse=True)
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with recipes of the reader's own and those that other commands write."""
    folder = tmp_path_factory.mktemp("examples")
    for name in ("my-recipe.yaml", "recipe.yaml", "folder/best.yaml"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(MINE)
    (folder / "runs/quickstart").mkdir(parents=True)
    (folder / "folder/recipe.yaml").write_text(MINE)
    (folder / "runs/quickstart/recipe.yaml").write_text("extends: quickstart\n")
    for run in ("steered", "pilot"):
        (folder / "runs" / run).mkdir()
        (folder / "runs" / run / "recipe.yaml").write_text("extends: gns/small\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def parsed(arguments: list[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The path of the command and what its parameters become; its usage errors are raised."""
    command, path, rest = COMMAND_LINE, [], list(arguments)
    while hasattr(command, "commands"):
        if not rest or rest[0] in ("--help", "--version"):
            return tuple(path), {}
        name = rest.pop(0)
        if name != "--quiet":
            assert name in command.commands, f"there is no command {' '.join([*path, name])}"
            command = command.commands[name]
            path.append(name)
    if not rest or rest == ["--help"]:
        return tuple(path), {}  # the command by its name
    return tuple(path), command.make_context(path[-1], rest).params


CHECKS: dict[str, Callable[[Any], Any]] = {
    "paper": paper_named,
    "key": explain,
    "length_sweep": lambda name: name and load_recipe(name).recipe.evaluation.length_sweep,
}
"""What must exist, by the name of the parameter that names it."""


@pytest.mark.parametrize(
    "example", EXAMPLES, ids=lambda example: f"{example.place}: {example.text}"
)
def test_the_command_line_takes_it(example: Example) -> None:
    path, params = parsed(example.arguments)
    for name, check in CHECKS.items():
        if params.get(name) is not None:
            check(params[name])
    if params.get("recipe") is None:
        return
    recipe = params["recipe"]
    overrides = [word for word in params.get("overrides") or () if "=" in word]
    load = load_vision_recipe if path[0] == "vision" else load_any_recipe
    load(recipe, overrides)


def test_all_kinds_of_places_are_read() -> None:
    places = {example.place.partition(":")[0] for example in EXAMPLES}
    assert {"README.md", "docs/evaluation.md", "src/feldspar/prepare/stages.py"} <= places
    assert {"feldspar train --help", "feldspar corpus build --help"} <= places
    assert len(EXAMPLES) > 150, "fewer would mean that they are no longer found"


def test_the_workspace_is_used(workspace: Path) -> None:
    assert load_recipe("my-recipe.yaml").reference == "my-recipe.yaml" and workspace.is_dir()


EXECUTED = {
    ("plan",): (),
    ("vision", "plan"): (),
    ("config", "show"): (),
    ("config", "explain"): (),
    ("config", "schema"): (),
    ("recipe", "list"): (),
    ("recipe", "show"): (),
    ("train",): ("--dry-run",),
    ("reproduce",): ("--dry-run",),
}
"""Commands that need no data and no device, and what is added to them; the others are only read:
they train for minutes or hours, download, need a device, or files of the reader's."""
NEEDS_FILES = ("--law runs/", "--measured", "--judge")
"""Options of them that name files which no example makes here."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "example",
    [
        example
        for example in EXAMPLES
        if parsed(example.arguments)[0] in EXECUTED
        and parsed(example.arguments)[1]
        and not any(option in example.text for option in NEEDS_FILES)
    ],
    ids=lambda each: f"{each.place}: {each.text}",
)
def test_what_needs_no_data_runs(example: Example) -> None:
    path, params = parsed(example.arguments)
    added = [option for option in EXECUTED[path] if not params.get("dry_run")]
    assert run_with([*example.arguments, *added]) == 0
