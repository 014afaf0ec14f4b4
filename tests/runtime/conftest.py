"""What the tests of this room share: one thread, news as a list, scripts in real processes."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from feldspar.core.progress import SilentListener, listening
from tests.processes import LAUNCHER, run_together

SCRIPTS = Path(__file__).parent / "scripts"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Collector(SilentListener):
    """Keeps all that was said and shown."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.shown: list[str | None] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def show(self, line: str | None) -> None:
        self.shown.append(line)


@pytest.fixture
def news() -> Iterator[Collector]:
    """Everything that was said during the test."""
    collector = Collector()
    with listening(collector):
        yield collector


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in LAUNCHER}
    return kept | {"OMP_NUM_THREADS": "1"}


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start one of the scripts in a process of its own; killed at the end of the test."""
    running: list[subprocess.Popen[str]] = []

    def run(script: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-u", str(SCRIPTS / script), *map(str, arguments)],
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def torchrun() -> Callable[..., str]:
    """Run one of the scripts in several real processes that talk through gloo; its output."""

    def run(processes: int, script: str, *arguments: object, code: int = 0) -> str:
        result = run_together(processes, [SCRIPTS / script, *arguments])
        assert result.returncode == code, result.stdout + result.stderr
        return result.stdout + result.stderr

    return run
