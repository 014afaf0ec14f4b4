"""The processors and memory that a machine, or a control group on it, grants this process.

Containers and batch systems set control groups. A quota limits processor time without hiding
processors: threads beyond the quota are stopped for a part of each period, and all threads that
work on the same product wait for them.
"""

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Limits of control groups, versions 2 and 1. A container sees its own group as the root."""


def granted_processors(root: Path = ROOT, membership: Path = MEMBERSHIP) -> float | None:
    """Return the smallest quota of this process's groups, in processors; None where none is set.

    Reads version 2 (``cpu.max``) and version 1 (``cpu.cfs_quota_us``) of Linux's control groups.
    """
    quotas = [
        quota
        for folder in _folders(root, membership)
        for quota in (_second_version(folder), _first_version(folder))
        if quota is not None
    ]
    return min(quotas, default=None)


def _folders(root: Path, membership: Path) -> Iterator[Path]:
    """Yield the folders of the process's groups and of all groups above them."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        lines = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / controllers if controllers else root
        # A container sees its own group as the root, whatever name the host gives it.
        group = top / name.strip("/")
        while group != top:
            yield group
            group = group.parent
        yield top
    yield root / "cpu"


def _second_version(folder: Path) -> float | None:
    return _share(_read(folder / "cpu.max").split())


def _first_version(folder: Path) -> float | None:
    quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    return _share([quota.strip(), period.strip()])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _share(words: list[str]) -> float | None:
    """Return quota over period; None for ``max``, -1 and anything that is not two numbers."""
    try:
        quota, period = map(int, words)
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None


def memory_bytes(limits: tuple[Path, ...] = MEMORY_LIMITS) -> int | None:
    """Return the smallest of the machine's memory and the limits; None where none is known."""
    known = [installed_memory_bytes(), *map(_memory_limit, limits)]
    return min((value for value in known if value), default=None)


def installed_memory_bytes() -> int | None:
    """Return the machine's memory, whatever is granted of it; None where it is not known."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _memory_limit(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # absent, or the word max
        return None
