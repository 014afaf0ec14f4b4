"""Memory that this machine, or the container around this process, can give at most."""

import os
from pathlib import Path

LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Of control groups of version 2 and 1; a container sees its own group as the root."""


def memory_bytes(limits: tuple[Path, ...] = LIMITS) -> int | None:
    """Return the smallest of the machine's memory and the limits; None where nothing is known."""
    known = [_physical(), *map(_limit, limits)]
    return min((value for value in known if value), default=None)


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _limit(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # absent, or the word max
        return None
