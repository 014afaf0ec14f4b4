"""Instants of a command at which something can happen: each time it changes the file system.

Python tells an audit hook of each file that it opens, renames or removes. The hook counts these
events below the workspace; at one of them a fault strikes.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
_WRITING = os.O_WRONLY | os.O_RDWR


def writes(event: str, arguments: tuple[Any, ...], work: str) -> bool:
    """Tell whether an event changes something in the workspace."""
    if event == "open":
        path, _, flags = arguments
        return _within(path, work) and bool(flags & _WRITING)
    return event in _CHANGES and _within(arguments[0], work)


def _within(path: object, work: str) -> bool:
    if not isinstance(path, str | bytes | os.PathLike):
        return False
    return os.path.abspath(os.fsdecode(path)).startswith(work)  # noqa: PTH100 - no link is followed


def at_event(number: int, act: Callable[[str, str], None]) -> Callable[[], None]:
    """Return what installs a hook that acts at the event ``number`` (from 0) and at later ones."""

    def install() -> None:
        work = str(Path.cwd())
        seen = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen
            if writes(event, arguments, work):
                seen += 1
                if seen > number:
                    act(event, os.fsdecode(arguments[0]))

        sys.addaudithook(hook)

    return install


def count_into(path: Path) -> Callable[[], None]:
    """Return what installs a hook that writes a byte into ``path`` at each event."""

    def install() -> None:
        work = str(Path.cwd())
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if writes(event, arguments, work):
                os.write(descriptor, b".")

        sys.addaudithook(hook)

    return install


def refuse(number: int) -> Callable[[str, str], None]:
    """Return an act: the system refuses whatever would make or fill a file, by this errno."""

    def act(event: str, path: str) -> None:
        if event not in ("os.remove", "os.rmdir"):
            raise OSError(number, os.strerror(number), path)

    return act


def send(number: signal.Signals) -> Callable[[str, str], None]:
    """Return an act: the process receives a signal, once."""
    sent = False

    def act(event: str, path: str) -> None:
        nonlocal sent
        if not sent:
            sent = True
            os.kill(os.getpid(), number)

    return act
