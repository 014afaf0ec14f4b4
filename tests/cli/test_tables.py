"""Tables: nothing is cut, in a file or on a terminal, and no cell steers the terminal."""

import io

import pytest

from feldspar.cli.console import escaped_output
from feldspar.cli.tables import print_table

LONG = "/a/long/path" * 20
EVIL = "\x1b]0;mine\x07\x1b[2J\x9b31m\u202e\r"


class Terminal(io.StringIO):
    """Collect what is written to a terminal of 40 columns."""

    def isatty(self) -> bool:
        return True


def test_a_file_gets_aligned_lines_of_any_length(capsys: pytest.CaptureFixture[str]) -> None:
    prose = "words " * 100
    print_table(("source", "tokens", "note"), [(LONG, "1", prose), ("b", "22", "")], fold=("note",))
    head, first, second = capsys.readouterr().out.splitlines()
    assert LONG in first and prose.strip() in first
    assert head.index("tokens") + len("tokens") == first.index(" 1 ") + 2 == second.index("22") + 2
    assert not any(line.endswith(" ") for line in (head, first, second))
    assert "\x1b" not in head + first + second


def test_without_headers_only_rows_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("", ""), [("a", "1"), ("bb", "2")], left=2, indent=2)
    assert capsys.readouterr().out == "  a   1\n  bb  2\n"


def test_a_narrow_terminal_cuts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    with escaped_output():
        print_table(("path", "count", "note"), [(LONG, "1,234", "some words " * 9)], fold=("note",))
    written = terminal.getvalue()
    assert LONG in written and "1,234" in written and "\u2026" not in written
    assert written.count("words") == 9 and len(written.splitlines()) > 3, "prose is folded"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_cells_cannot_steer_the_terminal(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setenv("TERM", "xterm")
    with escaped_output():
        print_table((f"head{EVIL}", "n"), [(f"NAME{EVIL}", "1"), ("[red]a\nb[/red]", "2")])
    written = stream.getvalue()
    assert "NAME" in written and "[red]a\\nb[/red]" in written
    assert not any(evil in written for evil in ("\x1b]", "\x1b[2J", "\x9b", "\x07", "\u202e", "\r"))
