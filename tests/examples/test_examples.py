"""Every command that help, docs and messages name is one that the command line takes."""

import io
import shlex
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from feldspar.cli.main import USAGE_ERROR, run_with
from feldspar.papers.catalogue import paper_named
from feldspar.recipe.explain import explain
from feldspar.recipe.load import load_any_recipe, load_recipe, load_vision_recipe
from tests.examples.collect import (
    Example,
    help_examples,
    message_examples,
    page_examples,
    parsed,
    python_programs,
)
from tests.examples.shorten import shortened
from tests.examples.table import PROGRAMS_ONLY_READ, PYTHON_PLACES, RUN, TABLE, Row, row_of
from tests.examples.workspace import Folder, make_workspace, write_recipes

EXAMPLES = sorted(
    {*help_examples(), *page_examples(), *message_examples()},
    key=lambda example: (example.place, example.text),
)


@pytest.fixture(scope="module", autouse=True)
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with recipes of the reader's own and those that other commands write."""
    folder = tmp_path_factory.mktemp("examples") / "here"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_recipes()
        runs = (RUN, "runs/continued", "../again/continued")
        for name in ("folder/best.yaml", *(f"{each}/recipe.yaml" for each in ("folder", *runs))):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy("my-recipe.yaml", name)
        yield folder


def sweep_of(name: str) -> None:
    assert load_recipe(name).recipe.evaluation.length_sweep is not None, f"{name} has no sweep"


CHECKS: dict[str, Callable[[Any], Any]] = {
    "paper": paper_named,
    "key": explain,
    "length_sweep": sweep_of,
}
"""Things that must exist, by the name of the parameter that names them."""


@pytest.mark.parametrize(
    "example", EXAMPLES, ids=lambda example: f"{example.place}: {example.text}"
)
def test_the_command_line_takes_it(example: Example) -> None:
    path, params = parsed(example)
    if params is None:
        return
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


@pytest.mark.parametrize("text", ["feldspar train", "feldspar", "feldspar tokens"])
def test_a_command_is_named_without_arguments_in_prose_only(text: str) -> None:
    assert parsed(Example("a page", text, prose=True))[1] is None
    with pytest.raises((USAGE_ERROR, AssertionError)):
        parsed(Example("a block", text))


def test_a_sweep_is_of_a_recipe_that_has_one() -> None:
    with pytest.raises(AssertionError, match="has no sweep"):
        test_the_command_line_takes_it(Example("", "feldspar evaluate x --length-sweep quickstart"))


def is_whole(example: Example) -> bool:
    """Tell whether it is more than a name, and one that the command line takes."""
    with suppress(USAGE_ERROR, AssertionError):
        return parsed(example)[1] is not None
    return False


COMMANDS = sorted({tuple(each.arguments) for each in EXAMPLES if is_whole(each)})


def test_every_row_of_the_table_is_of_use() -> None:
    used = {row_of(command) for command in COMMANDS}
    assert [row.commands for row in TABLE if row not in used] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [each for each in COMMANDS if not (row_of(each).data or row_of(each).only_read)],
    ids=" ".join,
)
def test_what_needs_no_data_runs(command: tuple[str, ...]) -> None:
    assert run_with(row_of(command).words(command)) == 0


@pytest.mark.slow
def test_what_needs_data_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One test, since each worker of pytest would make the folder anew."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    make_workspace()
    folder, failed = Folder(work, tmp_path / "kept"), []
    for command in COMMANDS:
        row = row_of(command)
        if not row.data or row.only_read:
            continue
        capsys.readouterr()
        monkeypatch.setattr("sys.stdin", io.StringIO("Where is the old house?\n"))
        if (code := run_with(whole(row, command))) != row.exits:
            failed.append((shlex.join(command), code, capsys.readouterr().err[-500:]))
        folder.restore()
    for program in python_programs():
        if program.place in PROGRAMS_ONLY_READ:
            continue
        text = program.text
        for words, shorter in PYTHON_PLACES.items():
            text = text.replace(words, shorter)
        exec(compile(text, program.place, "exec"), {"__name__": program.place})
        folder.restore()
    assert not failed, "\n".join(f"{command} ({code}): {said}" for command, code, said in failed)


def whole(row: Row, command: tuple[str, ...]) -> list[str]:
    """The command that is run."""
    words = row.words(command)
    if not row.small:
        return words
    _, params = parsed(Example("", shlex.join(["feldspar", *words])))
    assert params is not None
    overrides = [word for word in params["overrides"] or () if "=" in word]
    return [*words, *shortened(params.get("recipe", "quickstart"), overrides)]
