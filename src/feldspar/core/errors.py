"""Errors by who can correct them, each with the exit code of the command line.

A message is one line that stands alone (what), then where, found, allowed and do, each when known.
"""

from collections.abc import Iterable
from difflib import get_close_matches

FOUND_LIMIT = 80
EXIT_CHECK_FAILED = 1
EXIT_HUNG_UP = 129
EXIT_INTERRUPTED = 130
EXIT_READER_GONE = 141
EXIT_TERMINATED = 143


class FeldsparError(Exception):
    """An error of feldspar. It says what is wrong, and where known where, found, allowed, do."""

    exit_code = 70

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        found: object = None,
        allowed: str | Iterable[str] | None = None,
        do: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.found = None if found is None else shorten(str(found))
        self.allowed = allowed if isinstance(allowed, str | None) else ", ".join(allowed)
        self.do = do

    def __str__(self) -> str:
        details = [
            f"  {label}: {value}"
            for label, value in (
                ("where", self.where),
                ("found", self.found),
                ("allowed", self.allowed),
                ("do", self.do),
            )
            if value is not None
        ]
        return "\n".join([self.what, *details])


class UserError(FeldsparError, ValueError):
    """A recipe, data or arguments that the user can correct."""

    exit_code = 2


class SetupError(FeldsparError):
    """The machine lacks something: an extra, disk space, a device."""

    exit_code = 3


class RunError(FeldsparError, RuntimeError):
    """A run that cannot go on: non-finite loss, a damaged checkpoint."""

    exit_code = 4


class NonFiniteError(RunError):
    """A loss, gradient or stream that is not finite."""


class InternalError(FeldsparError):
    """A fault of feldspar itself."""


def missing_extra(package: str, extra: str) -> SetupError:
    """Return the error of an adapter whose optional package is not installed."""
    return SetupError(
        f"{package} is not installed", do=f"install it with: pip install 'feldspar[{extra}]'"
    )


def shorten(text: str, limit: int = FOUND_LIMIT) -> str:
    """Return ``text`` on one line of at most ``limit`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to ``name``, or None if none comes close."""
    matches = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None
