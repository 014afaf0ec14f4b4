"""Each tutorial, command by command in one empty folder, as a reader copies it, with short runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from feldspar.cli.main import run_with
from tests.examples.collect import Example, parsed
from tests.examples.shorten import shortened
from tests.examples.tutorial import Step, pages, pattern, steps, unseen
from tests.examples.tutorial_table import PAGES, Page


def test_every_page_is_in_the_table() -> None:
    assert sorted(PAGES) == pages()


@pytest.mark.parametrize("page", pages())
def test_the_command_line_takes_the_commands(page: str) -> None:
    found = [step for step in steps(page) if step.words]
    assert found
    for step in found:
        parsed(Example(page, step.command.replace("\\\n", " ")))


@pytest.mark.parametrize("page", pages())
def test_every_change_is_of_use(page: str) -> None:
    text = "\n".join(step.command for step in steps(page))
    table = PAGES[page]
    assert [old for old in table.replaced if old not in text] == []
    beginnings = [f"feldspar {beginning}" for beginning in table.added]
    assert [start for start in beginnings if start not in text] == []


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("kept 2,091 of 5,263", "kept 7 of 9\n"),
        ("mine.yaml: written", "written\nmine.yaml: written"),
        ("wrote ... runs/a", "wrote all of runs/a"),
        ("size   3.1 MB", "size 12 kB"),
    ],
)
def test_words_are_compared_and_numbers_are_not(shown: str, printed: str) -> None:
    assert unseen([shown], printed) == []


def test_a_line_that_is_not_printed_is_found() -> None:
    assert unseen(["kept 3", "near 4"], "near 4\nkept 3") == ["near 4"]
    assert unseen(["report.html"], "report_html") == ["report.html"]
    assert unseen(["near 4", "kept 3"], "kept 7", "near 8") == []
    assert unseen(["...", "kept 3"], "kept 7") == []
    assert pattern("a.b") == r"a\.b"


@pytest.mark.slow
@pytest.mark.usefixtures("one_core")
@pytest.mark.parametrize("page", pages())
def test_a_reader_copies_the_page(
    page: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    table = PAGES[page]
    for fixture in table.fixtures:
        request.getfixturevalue(fixture)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    table.prepare()
    out, err = "", ""
    for step in steps(page):
        code = run(step, table)
        printed = capfd.readouterr()
        out, err = out + printed.out, err + printed.err
        assert code == 0, f"{step.command}\n{out}\n{err}"
        if step.shown:
            missing = [] if table.leaves_out(step.command) else unseen(step.shown, out, err)
            assert not missing, f"not printed: {missing}\n{step.command}\n{out}\n{err}"
            out, err = "", ""
    assert [made for made in table.made if not Path(made).exists()] == []


def run(step: Step, table: Page) -> int:
    """Run a command of the page in its shorter form, and return its exit code."""
    command = table.shorter(step.command)
    words = Step(command).words
    if words is None:
        return subprocess.run(["bash", "-c", command], check=False).returncode
    return run_with([*words, *overrides(command, table.small), *table.words_added_to(command)])


def overrides(command: str, small: tuple[str, ...]) -> list[str]:
    """Return what makes the command's recipe small, if it is one of these."""
    _, params = parsed(Example("", command))
    if params is None or params.get("recipe") not in small:
        return []
    return shortened(params["recipe"], list(params.get("overrides") or ()))


def test_a_page_changes_commands_by_their_beginning() -> None:
    table = Page(added={"train": ("seed=1",)}, replaced={"9 steps": "1 steps"})
    assert table.words_added_to("feldspar train a.yaml") == ("seed=1",)
    assert table.words_added_to("feldspar plan a.yaml") == ()
    assert table.shorter("echo 9 steps") == "echo 1 steps"
