"""Commands and scripts in processes of their own, forked from one that has imported everything.

A new interpreter takes three seconds of processor time before the first line of a command, a
launcher of two processes ten. The process that is forked has imported torch and never used it: its
threads would not be there in the fork. A fork has its own folder, environment, output and signals.
"""

import atexit
import gc
import multiprocessing
import multiprocessing.connection
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        *("feldspar.cli.main", "feldspar.train.run", "feldspar.vision.run"),
        "feldspar.prepare.build",
        # Optimizers and distributed models import torch's compiler.
        *("torch.distributed.fsdp", "torch._dynamo"),
    ]
)
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
TIMEOUT_SECONDS = 300.0

Words = Sequence[object]
"""``feldspar`` or the path of a script, and its arguments."""


class Forked:
    """A process that was started: a part of what ``subprocess.Popen`` offers."""

    def __init__(
        self,
        words: Words,
        environment: Mapping[str, str] | None = None,
        cwd: Path | str | None = None,
        before: Callable[[], object] | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="feldspar-process-")
        self._files = [Path(self._folder.name, name) for name in ("out", "err")]
        for file in self._files:
            file.touch()
        arguments = (
            [str(word) for word in words],
            dict(os.environ if environment is None else environment),
            str(cwd or Path.cwd()),
            [str(path) for path in self._files],
            os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None,
            before,
        )
        self.process = CONTEXT.Process(target=_work, args=arguments)
        self.process.start()

    @property
    def returncode(self) -> int | None:
        """The exit code, minus the signal, or None while it runs."""
        return self.process.exitcode

    def poll(self) -> int | None:
        """Return ``returncode``."""
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        assert self.process.pid is not None
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; return what it wrote."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise subprocess.TimeoutExpired(str(self._files), timeout or 0, *self.texts())
        return self.texts()

    def texts(self) -> tuple[str, str]:
        """Return what it has written so far to its output and its errors."""
        out, err = (path.read_text(encoding="utf-8", errors="replace") for path in self._files)
        return out, err


def run(
    words: Words,
    *,
    cwd: Path | str | None = None,
    timeout: float = TIMEOUT_SECONDS,
    before: Callable[[], object] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run one to its end; ``before`` is called in its process first."""
    forked = Forked(words, cwd=cwd, before=before)
    out, err = forked.communicate(timeout)
    assert forked.returncode is not None
    return subprocess.CompletedProcess([*words], forked.returncode, out, err)


def run_together(
    number: int, words: Words, *, timeout: float = TIMEOUT_SECONDS
) -> subprocess.CompletedProcess[str]:
    """Run ``number`` of them as torchrun does: one is told of the others, and none outlives one
    that failed. The exit code is 0 or 1.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number)}
    all_forked = [
        Forked(words, os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(number)
    ]
    running = {one.process.sentinel: one for one in all_forked}
    failed = False
    while running and not failed:
        ended = multiprocessing.connection.wait([*running], timeout)
        failed = not ended or any(running.pop(each).returncode for each in map(_sentinel, ended))
    for forked in running.values():
        forked.send_signal(signal.SIGTERM)
    written = [one.communicate(30) for one in all_forked]
    out, err = ("".join(texts) for texts in zip(*written, strict=True))
    return subprocess.CompletedProcess([*words], int(failed), out, err)


def _sentinel(ended: object) -> int:
    assert isinstance(ended, int)
    return ended


def _work(
    words: list[str],
    environment: dict[str, str],
    folder: str,
    files: list[str],
    cores: set[int] | None,
    before: Callable[[], object] | None,
) -> None:
    """Become the program, in the fork."""
    gc.freeze()  # else each collection of garbage would copy the pages of all that was imported
    for number, path in enumerate(files, 1):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if cores is not None:
        os.sched_setaffinity(0, cores)  # the process that is forked has those of the first test
    sys.argv = words
    if before is not None:
        before()
    try:
        if words[0] == "feldspar":
            from feldspar.cli.main import run as run_feldspar

            run_feldspar()
        else:
            runpy.run_path(words[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # a fork of multiprocessing leaves them out
