"""Tell what a user would do next, after a command that makes something."""

import shlex
from pathlib import Path

from feldspar.core.progress import say


def tell_next(*steps: tuple[str, str]) -> None:
    """Show commands, each with what it does, below the result: on standard error, as progress.

    So they are not in the way of a pipe, and ``--quiet`` leaves them out. Commands call this where
    they print for people, not for ``--json``.
    """
    width = max(len(command) for command, _ in steps)
    for number, (command, purpose) in enumerate(steps):
        begin = "next: " if number == 0 else "      "
        say(f"{begin}{command:{width}}  # {purpose}")


def quoted(path: Path | str) -> str:
    """Return a path as one word of a shell command."""
    return shlex.quote(str(path))
