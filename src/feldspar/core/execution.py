"""Run pure units of work in this process or in a pool of processes, in the order given."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Protocol, TypeVar

from feldspar.core.cgroups import granted_processors
from feldspar.core.errors import RunError

Unit = TypeVar("Unit")
Result = TypeVar("Result")


class Executor(Protocol):
    """Runs a top-level, picklable function over units. Results come in the units' order."""

    elsewhere: bool
    """True if other machines run the units. Such a machine may stop while this one goes on."""

    def map(self, function: Callable[[Unit], Result], units: Iterable[Unit]) -> Iterator[Result]:
        """Apply ``function`` to each unit, lazily."""
        ...


class SerialExecutor:
    """One unit after the other, in this process."""

    elsewhere = False

    def map(self, function: Callable[[Unit], Result], units: Iterable[Unit]) -> Iterator[Result]:
        """Apply ``function`` to each unit, lazily."""
        return map(function, units)


class ProcessExecutor:
    """A pool of processes. It submits only as many units as keep the processes busy."""

    elsewhere = False

    def __init__(self, pool: ProcessPoolExecutor, workers: int) -> None:
        self._pool = pool
        self._in_flight = 2 * workers

    def map(self, function: Callable[[Unit], Result], units: Iterable[Unit]) -> Iterator[Result]:
        """Apply ``function`` to each unit, lazily."""
        pending: list[Future[Result]] = []
        for unit in units:
            with _whole_pool():  # giving out a unit fails too, once a worker has ended
                pending.append(self._pool.submit(function, unit))
            if len(pending) >= self._in_flight:
                yield _result(pending.pop(0))
        for future in pending:
            yield _result(future)


def _result(future: Future[Result]) -> Result:
    with _whole_pool():
        return future.result()


@contextmanager
def _whole_pool() -> Generator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise RunError(
            "a worker process ended unexpectedly",
            do="most often memory ran out: give the same command again with fewer workers",
        ) from error


def _end_with_parent() -> None:
    """End this process when the process that started it ends, even if that one is killed.

    It would wait for ever, or still write where the same command has been given again.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def available_cores() -> int:
    """Count the processors that this process may use, by its affinity and its group's quota.

    A part of a processor is not counted, but the result is at least 1.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    granted = granted_processors()
    return max(1, min(bound or 1, int(granted) if granted is not None else bound or 1))


@contextmanager
def executor(workers: int) -> Generator[Executor]:
    """Return an executor with ``workers`` processes; 1 runs in this process."""
    if workers <= 1:
        yield SerialExecutor()
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        try:
            yield ProcessExecutor(pool, workers)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
