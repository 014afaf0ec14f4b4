"""Faults of the system: no space at each write; no permission for each file and folder; links."""

import ctypes
import errno
import os
import resource
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from tests.faults.engine import Fault, spread
from tests.faults.instants import at_event, refuse
from tests.faults.workspace import (
    FREE_BYTES,
    HALF,
    MAKERS,
    TASKS,
    Task,
    files_of,
    place_of,
    restore,
)

FULL_AT_EVENTS = 8
FULL_AT_PAGES = 8
SYSTEM_ERRORS = (errno.EIO, errno.EMFILE, errno.EROFS)
SIZE_LIMITS = (0, 100, 3000, 12_000)
PAGE = 4096
FILLER = "filler"
CAPABILITY_VERSION = 0x20080522
"""Version 3, that of the structures below."""


def disk_full(reference: Path, changes: Mapping[str, int], mounted: bool) -> Iterator[Fault]:
    """Space ends at an open, at a file's size, and (on a small disk) at each page written."""
    for name in MAKERS:
        task = TASKS[name]
        outputs = task.makes
        for number in spread(changes[name], FULL_AT_EVENTS):
            yield Fault(
                "disk full",
                f"{name}: no space from change {number} on",
                task,
                inside=at_event(number, refuse(errno.ENOSPC)),
                names=outputs,
            )
        for error in SYSTEM_ERRORS:
            for number in spread(changes[name], 2):
                yield Fault(
                    "disk full",
                    f"{name}: {errno.errorcode[error]} from change {number} on",
                    task,
                    inside=at_event(number, refuse(error)),
                    names=outputs,
                )
        for limit in SIZE_LIMITS:
            yield Fault(
                "disk full",
                f"{name}: files of at most {limit} bytes",
                task,
                inside=partial(limit_size, limit),
                names=outputs,
            )
        if mounted:
            yield from _little_left(task, reference)


def _little_left(task: Task, reference: Path) -> Iterator[Fault]:
    needed = sum(
        (path.stat().st_size + 2 * PAGE) // PAGE
        for folder in task.makes
        for path in (reference / folder).rglob("*")
    )
    for pages in spread(needed, FULL_AT_PAGES):
        yield Fault(
            "disk full",
            f"{task.name}: {pages} pages left on the disk",
            task,
            strike=partial(fill_up, pages=pages),
            undo=empty_again,
            names=task.makes,
        )


def limit_size(limit: int) -> None:
    """Let no file of this process grow beyond a limit."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def fill_up(work: Path, pages: int) -> None:
    """Leave so many pages on the file system of the workspace."""
    filler = work.parent / FILLER
    with filler.open("wb") as file:
        free = os.statvfs(work).f_bavail * os.statvfs(work).f_frsize
        assert free <= FREE_BYTES
        os.posix_fallocate(file.fileno(), 0, max(free - pages * PAGE, PAGE))


def empty_again(work: Path) -> None:
    """Give the space back."""
    (work.parent / FILLER).unlink()


def permissions(reference: Path) -> Iterator[Fault]:
    """Files and folders that a user may not read, and places where it may not write."""
    for task, name in _inputs(reference):
        yield _forbidden(reference, task, name)
    for name in MAKERS:
        task = TASKS[name]
        yield Fault(
            "permissions",
            f"{name}: the workspace may not be written",
            task,
            strike=lambda work: work.chmod(0o555),
            undo=lambda work: work.chmod(0o755),
            inside=give_up_privileges,
            names=task.makes,
        )


def _inputs(reference: Path) -> Iterator[tuple[Task, str]]:
    for folder, readers in {
        "texts": ("build",),
        "documents": ("encode", "train"),
        "shards": ("train", "show"),
        HALF: ("resume",),
        "run": ("evaluate", "export"),
        "exported": ("import",),
        "release": ("verify",),
    }.items():
        folders = sorted(
            path.relative_to(reference).as_posix()
            for path in (reference / folder).rglob("*")
            if path.is_dir()
        )
        for reader in readers:
            task = TASKS[reader]
            if folder in task.needs:
                for name in [folder, *folders, *files_of(reference, folder)]:
                    yield task, name


def _forbidden(reference: Path, task: Task, name: str) -> Fault:
    folder = place_of(name).partition("/")[0]
    return Fault(
        "permissions",
        f"{task.name}: {name} may not be read",
        task,
        strike=lambda work: (work / place_of(name)).chmod(0),
        undo=lambda work: restore(reference, work, name),
        inside=give_up_privileges,
        names=(Path(name).name, folder),
    )


def give_up_privileges() -> None:
    """Let the bits of files and folders hold for this process, although it belongs to root."""

    class Header(ctypes.Structure):
        _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]

    header, nothing = Header(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(ctypes.byref(header), ctypes.byref(nothing)):
        raise OSError(ctypes.get_errno(), "capset")


def links(reference: Path) -> Iterator[Fault]:
    """Folders that are links: to the real ones, to nothing, to themselves."""
    for name in (*MAKERS, "verify", "show", "evaluate"):
        task = TASKS[name]
        for folder in task.needs:
            for what, strike in (
                ("elsewhere", move_away),
                ("dangling", dangle),
                ("a loop", loop),
            ):
                yield Fault(
                    "links",
                    f"{name}: {folder} is a link, {what}",
                    task,
                    strike=partial(strike, name=folder),
                    undo=partial(_restored, reference=reference, name=folder),
                    names=(folder, "texts", "prose", "documents"),
                )
        for folder in task.makes:
            for what, strike in (("dangling", dangle), ("a loop", loop)):
                yield Fault(
                    "links",
                    f"{name}: its result {folder} is a link, {what}",
                    task,
                    strike=partial(strike, name=folder),
                    undo=lambda work, folder=folder: forget(work, folder),
                    names=(folder,),
                )


def move_away(work: Path, name: str) -> None:
    """Put a folder elsewhere and a link in its place."""
    away = work.parent / "away"
    if away.is_dir():
        shutil.rmtree(away)
    away.mkdir()
    (work / name).rename(away / name)
    (work / name).symlink_to(away / name)


def dangle(work: Path, name: str) -> None:
    """Put a link to nothing in a folder's place."""
    forget(work, name)
    (work / name).symlink_to(work / "nothing")


def loop(work: Path, name: str) -> None:
    """Put a link to itself in a folder's place."""
    forget(work, name)
    (work / name).symlink_to(work / name)


def forget(work: Path, name: str) -> None:
    """Remove a file, a folder or a link."""
    path = work / name
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if (work / "nothing").is_dir():
        shutil.rmtree(work / "nothing")


def _restored(work: Path, reference: Path, name: str) -> None:
    forget(work, name)
    restore(reference, work, name)
