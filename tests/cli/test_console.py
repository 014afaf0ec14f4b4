"""Progress when piped is plain lines, now and then; no text that is shown steers the terminal."""

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from feldspar.cli.console import (
    EscapingStream,
    TerminalListener,
    escaped_output,
    folded_line,
    print_error,
    print_json,
)
from feldspar.cli.main import run_with
from feldspar.core.errors import UserError
from feldspar.core.progress import listening, progress, say, show


def test_piped_progress_is_plain(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(0, 1000, 6))
    monkeypatch.setattr("feldspar.cli.console.time.monotonic", lambda: float(next(seconds)))
    with listening(TerminalListener()):
        with progress("reading", 10, "documents") as advance:
            for _ in range(10):
                advance(1)
        say("[red]done[/red]")
        show("step 1")
        show(None)
    out, err = capsys.readouterr()
    assert out == ""
    assert "\x1b" not in err and "\r" not in err
    lines = err.splitlines()
    assert any(line.startswith("reading: ") and "documents (" in line for line in lines)
    assert len(lines) < 10
    assert "[red]done[/red]" in lines


class Elapsed:
    """A timer whose time is over when it begins, or that was stopped."""

    def __init__(self, seconds: float, work: Callable[[], None]) -> None:
        self.start = work

    def cancel(self) -> None:
        """Nothing is left to stop."""


def test_long_work_is_named_when_nothing_is_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feldspar.cli.console.Timer", Elapsed)
    with listening(TerminalListener()), progress("loading the base", unit=""):
        pass
    assert capsys.readouterr().err == "loading the base ...\n"


def test_short_work_is_not_named_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    with listening(TerminalListener()), progress("drawing masks", unit=""):
        pass
    assert capsys.readouterr().err == ""


def test_a_line_is_folded_between_its_parts() -> None:
    parts = ["phase", "step 1,234", "loss 3.1416", "learning rate 0.001", "12m30s left"]
    line = " | ".join(parts)
    assert folded_line(line, 80) == [line]
    assert folded_line(line, 40) == [" | ".join(parts[:3]), " | ".join(parts[3:])]
    assert folded_line(line, 5) == parts


def test_json_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": "東"})
    print_error(UserError("bad", do="good"))
    out, err = capsys.readouterr()
    assert json.loads(out) == {"name": "東"} and "東" in out
    assert err == "error: bad\n  do: good\n"


EVIL = "\x1b]0;mine\x07\x1b[2J\x9b31m\u202e\r"


def steers(text: str) -> bool:
    return any(character != "\n" and not character.isprintable() for character in text)


def test_file_names_records_and_arguments_cannot_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"{EVIL}.jsonl"
    path.write_text(f"not json {EVIL}\n")
    bad = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\x1b.jsonl"))
    out = str(tmp_path / "out")
    words = "a word and another " * 20
    records = [{"source": "s", "id": f"{EVIL}{n}", "text": words + EVIL} for n in range(3)]
    for arguments in (
        ["corpus", "dedup", str(path), "--out", out],
        ["corpus", "dedup", str(bad), "--out", out],
        ["corpus", "dedup", EVIL, "--out", out],
        ["recipe", "show", "quickstart", f"{EVIL}=1"],
        [EVIL],
        [f"--{EVIL}"],
    ):
        assert run_with(arguments) == 2
        out_text, err = capsys.readouterr()
        assert "error" in err.lower() and not steers(out_text + err), ascii(err)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    folder = tmp_path / f"out{EVIL}"
    assert run_with(["corpus", "dedup", str(path), "--out", str(folder), "--json"]) == 0
    out_text, err = capsys.readouterr()
    assert not steers(out_text + err)
    (example, *_) = json.loads(out_text)["examples"]
    assert example["id_a"].startswith(EVIL)


class Terminal(io.StringIO):
    """Collect what is written to a terminal."""

    def isatty(self) -> bool:
        return True


def test_bars_and_what_is_printed_beside_them_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    evil = "\x1bcNAME\x9b\x1b]0;mine\x07"
    with escaped_output():
        with listening(TerminalListener()):
            with progress(evil, 2) as advance:
                advance(1)
                say(evil)
                print(evil)
                sys.stderr.write(evil + "\n")
            show(evil)
            print(evil)
            show(None)
        print(evil)
        assert isinstance(sys.stdout, EscapingStream)
    assert sys.stdout is terminal
    written = terminal.getvalue()
    assert written.count("NAME") >= 6
    assert not any(steering in written for steering in ("\x1bc", "\x9b", "\x1b]", "\x07"))


def test_work_inside_other_work_has_a_bar_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with escaped_output(), listening(TerminalListener()):
        with progress("models", 2, "models") as advance:
            with progress("opening one", unit=""):
                say("inside")
            advance(1)
            show("a line that a bar hides")
        show("step 1")
        show(None)
    written = terminal.getvalue()
    for told in ("models", "opening one", "inside", "0% of 2 models", "step 1"):
        assert told in written
    assert "hides" not in written


def test_characters_that_the_terminal_lacks_are_written_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, "ascii"))
    with escaped_output():
        print_json({"name": "\u6771"})
        sys.stdout.flush()
    assert json.loads(written.getvalue()) == {"name": "\u6771"}
