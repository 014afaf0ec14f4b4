"""Progress when piped: plain lines on standard error, now and then, and no control characters."""

import json

import pytest

from feldspar.cli.console import TerminalListener, print_error, print_json
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


def test_json_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": "東"})
    print_error(UserError("bad", do="good"))
    out, err = capsys.readouterr()
    assert json.loads(out) == {"name": "東"} and "東" in out
    assert err == "error: bad\n  do: good\n"
