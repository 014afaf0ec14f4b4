"""Report the progress of long work to a listener. Without a listener nothing is shown."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

SEPARATOR = " | "
"""Stands between the parts of a line that ``show`` keeps up to date; it may be folded there."""


class ProgressListener(Protocol):
    """Shows the progress of nested pieces of work, and single lines of news."""

    def start(self, title: str, total: float | None, unit: str) -> Callable[[float], None]:
        """Begin a piece of work; return a function that is called with each amount done."""
        ...

    def finish(self) -> None:
        """End the piece of work that was started last."""
        ...

    def say(self, line: str) -> None:
        """Show one line of news."""
        ...

    def show(self, line: str | None) -> None:
        """Show a line that replaces the one shown before; None removes it."""
        ...


class SilentListener:
    """Shows nothing."""

    def start(self, title: str, total: float | None, unit: str) -> Callable[[float], None]:
        """Ignore the work."""
        return lambda amount: None

    def finish(self) -> None:
        """Ignore its end."""

    def say(self, line: str) -> None:
        """Ignore the news."""

    def show(self, line: str | None) -> None:
        """Ignore the line."""


_SILENT = SilentListener()
_listener: ContextVar[ProgressListener] = ContextVar("listener", default=_SILENT)


@contextmanager
def listening(listener: ProgressListener) -> Generator[None]:
    """Send all progress inside the block to ``listener``."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def progress(
    title: str, total: float | None = None, unit: str = "documents"
) -> Generator[Callable[[float], None]]:
    """Report a piece of work; the block receives a function to call with each amount done.

    With an empty ``unit`` nothing is counted, and the title alone is shown.
    """
    listener = _listener.get()
    advance = listener.start(title, total, unit)
    try:
        yield advance
    finally:
        listener.finish()


def say(line: str) -> None:
    """Show one line of news about what was just done."""
    _listener.get().say(line)


def show(line: str | None) -> None:
    """Show the state of long work in a line that replaces the one before; None removes it."""
    _listener.get().show(line)


def tokens_of_plan(tokens: int, planned: int) -> str:
    """Say how many of the planned tokens a run has read."""
    return f"{tokens:,} of {planned:,} planned tokens ({tokens / planned:.1%})"
