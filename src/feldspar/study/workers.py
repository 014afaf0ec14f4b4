"""Run units of work of several minutes in worker processes that save their state when stopped.

``core.execution`` is for short pure units, in order. Here results come as they are finished, and
units are watched while they run. A study that is interrupted asks its workers to stop; workers of a
study that was killed stop by themselves.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from types import FrameType
from typing import Any, Generic, TypeVar

from feldspar.core.errors import EXIT_TERMINATED, RunError

Unit = TypeVar("Unit")
Result = TypeVar("Result")
WATCH_SECONDS = 1.0


def run_side_by_side(
    function: Callable[[Unit], Result],
    units: Sequence[Unit],
    workers: int,
    watch: Callable[[], None],
) -> Iterator[tuple[int, Result]]:
    """Yield results of a top-level, picklable ``function`` with the index of each unit, as they
    finish.

    ``watch`` is called about every second. An error of a unit is raised here. If the iteration ends
    early, also by Ctrl-C or SIGTERM, each worker gets one SIGTERM and is waited for. Raises
    RunError if a worker process dies.
    """
    with _sigterm_as_exit():
        yield from _side_by_side(function, units, workers, watch)


def _side_by_side(
    function: Callable[[Unit], Result],
    units: Sequence[Unit],
    workers: int,
    watch: Callable[[], None],
) -> Iterator[tuple[int, Result]]:
    context = multiprocessing.get_context("spawn")
    waiting = list(enumerate(units))[::-1]
    crew: list[_Worker[Unit]] = []
    try:
        for _ in range(min(workers, len(units))):
            crew.append(_Worker(context, function))
            crew[-1].begin(*waiting.pop())
        busy = {worker.connection: worker for worker in crew}
        while busy:
            for connection in wait(list(busy), timeout=WATCH_SECONDS):
                worker = busy.pop(connection)  # pyrefly: ignore
                yield worker.index, worker.result()
                if waiting:
                    worker.begin(*waiting.pop())
                    busy[worker.connection] = worker
            watch()
    finally:
        for worker in crew:
            worker.end()
        for worker in crew:
            worker.process.join()


@contextmanager
def _sigterm_as_exit() -> Generator[None]:
    """Turn SIGTERM into an exit of this process, as Ctrl-C does, so that workers save their state
    first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(EXIT_TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Worker(Generic[Unit]):
    """One process and the unit that it runs."""

    def __init__(self, context: SpawnContext, function: Callable[[Unit], Any]) -> None:
        self.connection, inner = context.Pipe()
        self.index = -1
        # A daemon, so that it is ended at exit if waiting for it is interrupted too.
        self.process = context.Process(target=_serve, args=(function, inner), daemon=True)
        self.process.start()
        inner.close()

    def begin(self, index: int, unit: Unit) -> None:
        self.index = index
        self.connection.send(unit)

    def result(self) -> Any:
        try:
            value, error = self.connection.recv()
        except EOFError:
            self.process.join()
            raise RunError(
                "a worker process ended unexpectedly",
                found=f"exit code {self.process.exitcode}",
                do="probably memory ran out: run the same command again with fewer "
                "workers; finished work is kept",
            ) from None
        if error is not None:
            raise error
        return value

    def end(self) -> None:
        self.connection.close()
        self.process.terminate()


def _serve(function: Callable[[Any], Any], connection: Connection) -> None:
    """Receive units and send results until the other end of the pipe is closed."""
    os.setpgrp()  # Ctrl-C at the terminal stops only the study, which then stops its workers
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    while True:
        try:
            unit = connection.recv()
        except EOFError:
            return
        try:
            reply = (function(unit), None)
        except Exception as error:
            error.add_note(f"in a worker process:\n{traceback.format_exc()}")
            reply = (None, error)
        connection.send(reply)


def _end_with(sentinel: int) -> None:
    """Stop this process (after a checkpoint, if it trains) when its parent is gone."""
    wait([sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
