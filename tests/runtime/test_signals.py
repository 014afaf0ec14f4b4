"""Signals to real processes: the first one asks, the second one ends."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from feldspar.runtime.checkpoint_store import CheckpointStore
from feldspar.runtime.signals import GracefulStop

Start = Callable[..., subprocess.Popen[str]]
SIGNALS = [
    (signal.SIGTERM, 143),
    (signal.SIGHUP, 129),
    pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_the_first_signal_lets_the_step_end_and_a_checkpoint_be_written(
    tmp_path: Path, start: Start, number: signal.Signals, code: int
) -> None:
    process = start("stop_politely.py", tmp_path)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.wait(timeout=30) == code
    checkpoint = CheckpointStore(tmp_path).newest_valid()
    assert checkpoint is not None and checkpoint.state["step"] == checkpoint.position


def test_the_second_signal_ends_at_once(start: Start) -> None:
    process = start("stop_politely.py", "stubborn")
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130


def test_a_launcher_that_passes_the_same_signal_on_is_no_second_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with GracefulStop() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested_anywhere() and stop.exit_code == 130
        with pytest.raises(SystemExit) as caught:
            stop.exit()
    assert caught.value.code == 130


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with GracefulStop():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_a_terminal_that_closes_sends_two_signals_and_nohup_none() -> None:
    with GracefulStop() as stop:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert stop.requested_anywhere() and stop.exit_code == 129
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with GracefulStop() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)
