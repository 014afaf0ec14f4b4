"""Stages of work that survive a kill: the output of each unit is a folder that appears whole.

A unit's folder holds a manifest with the digest of everything that decides its content. Given the
same command again, units whose folders are whole and of the same digest are not run again.
"""

import fcntl
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from feldspar import __version__
from feldspar.core.errors import RunError, SetupError, UserError
from feldspar.core.execution import Executor
from feldspar.core.files import TEMPORARY_MARK, digest_of, new_folder, remove_incomplete
from feldspar.core.manifest import (
    MANIFEST_NAME,
    Manifest,
    manifest_text,
    read_manifest,
    records_of,
    verify_files,
)
from feldspar.core.progress import progress
from feldspar.corpus.columns import frugal_memory
from feldspar.corpus.read_progress import metered, read_progress

KIND = "unit of a stage"
TITLES = {
    "read": "reading and cleaning",
    "bands": "duplicates: fingerprints",
    "candidates": "duplicates: candidate pairs",
    "order": "duplicates: order of pairs",
    "compare": "duplicates: comparing pairs",
    "survivors": "duplicates: survivors",
    "write": "writing documents",
}
"""Work of each stage, as its progress is shown."""
Run = Callable[[Any, Path], dict[str, Any]]
"""Fills a folder from a unit and returns counts; top-level and pure but for that folder."""


@dataclass(frozen=True)
class Task:
    """One unit of a stage, the folder of its output and the digest of what decides it."""

    run: Run
    unit: Any
    folder: Path
    configuration: str
    flush: bool = False
    """True if its files are flushed to disk at its end, because the machine that made them may stop
    while the run goes on. Without it, digests find the files that a power cut tore."""
    meter: Path | None = None
    """The file into which it writes its progress."""


def perform(task: Task) -> dict[str, Any]:
    """Run a unit unless its folder is whole; return its counts."""
    counts = finished_counts(task.folder, task.configuration)
    if counts is not None:
        return counts
    with suppress(_OvertakenError), new_folder(task.folder, True, task.flush) as folder:
        with frugal_memory(), metered(task.meter):
            counts = task.run(task.unit, folder)
        manifest = Manifest(
            kind=KIND,
            configuration=task.configuration,
            version=__version__,
            counts=counts,
            files=records_of(folder),
        )
        (folder / MANIFEST_NAME).write_text(manifest_text(manifest), encoding="utf-8")
        if finished_counts(task.folder, task.configuration) is not None:
            raise _OvertakenError
    assert counts is not None
    return counts


class _OvertakenError(Exception):
    """A retry that was presumed dead finished first; this result is discarded."""


def finished_counts(folder: Path, configuration: str) -> dict[str, Any] | None:
    """Return the counts of a whole folder of that configuration; None where it must be made."""
    if not folder.is_dir():
        return None
    try:
        manifest = read_manifest(folder, KIND)
    except (UserError, RunError):
        return None
    if manifest.configuration != configuration or verify_files(folder, manifest):
        return None
    return manifest.counts


@dataclass(frozen=True)
class Done:
    """A unit's folder and counts."""

    folder: Path
    counts: dict[str, Any]


class Stages:
    """The stages of one run; the digest of each stage includes the stages before it."""

    def __init__(self, work: Path, pool: Executor, configuration: str) -> None:
        self.work = work
        self.pool = pool
        self._configuration = configuration

    def bind(self, *parts: str) -> None:
        """Let everything from here on depend on ``parts`` too."""
        self._configuration = digest_of(self._configuration, *parts)

    def run(
        self,
        name: str,
        function: Run,
        units: Iterable[tuple[Any, str]],
        total: int | None = None,
        here: Sequence[bool] = (),
        sizes: Sequence[int] = (),
    ) -> Iterator[Done]:
        """Run ``function`` on each (unit, digest of its own content), in order.

        ``here`` marks the units that only this machine can run. ``sizes`` are the bytes that each
        unit reads, where progress is shown in bytes.
        """
        self.bind(name)
        folder = self.work / name
        remove_incomplete(folder)

        def tasks(meter: Callable[[int], Path | None]) -> Iterator[Task]:
            for number, (unit, own) in enumerate(units):
                task = Task(
                    function,
                    unit,
                    unit_folder(folder, number),
                    digest_of(self._configuration, str(number), own),
                    self.pool.elsewhere,
                    meter(number),
                )
                if self.pool.elsewhere and number < len(here) and here[number]:
                    perform(task)  # whoever is given it then finds it done
                yield task

        with self._shown(name, total, sizes) as (meter, finish):
            for number, counts in enumerate(self.pool.map(perform, tasks(meter))):
                yield Done(unit_folder(folder, number), counts)
                finish(number)

    @contextmanager
    def _shown(
        self, name: str, total: int | None, sizes: Sequence[int]
    ) -> Generator[tuple[Callable[[int], Path | None], Callable[[int], None]]]:
        """Show progress; give the file in which a unit tells it, and what to call at its end."""
        title = TITLES.get(name, name)
        if sizes:
            with read_progress(title, self.work / f"{name}-progress", sizes) as told:
                yield told.meter, told.finish
        else:
            with progress(title, total, "parts") as advance:
                yield lambda number: None, lambda number: advance(1)


@contextmanager
def work_folder(out: Path) -> Generator[Path]:
    """Make a folder beside ``out`` for the stages; remove it at the end, and after bad input.

    It is kept when the process is stopped or the machine lacks something, so that the same command
    can go on.

    Raises UserError when another process is at work on the same output.
    """
    # Workers on other machines have other current folders.
    folder = out.absolute().with_name(f"{out.name}{TEMPORARY_MARK}work")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another process is building {out}", do="wait for it, or choose another folder"
            ) from error
        except OSError as error:
            raise SetupError(
                f"the file system of {out} has no locks: {error.strerror}",
                do="mount it with locks (Lustre: -o flock), or choose another folder",
            ) from error
        for left in folder.parent.glob(f"{out.name}{TEMPORARY_MARK}*"):
            if left != folder:
                shutil.rmtree(left, ignore_errors=True)
        try:
            yield folder
        except UserError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def unit_folder(stage: Path, number: int) -> Path:
    """Return the folder of one unit."""
    return stage / f"{number:06d}"


@dataclass(frozen=True)
class UnitFiles(Sequence[Path]):
    """The file ``name`` of each of ``units`` units, in order.

    Units that read all of them carry this object; a list of the paths for a terabyte of text would
    take 6 MB and two seconds to pickle with each unit.
    """

    stage: Path
    name: str
    units: int

    def __len__(self) -> int:
        return self.units

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Path, ...]: ...
    def __getitem__(self, index: int | slice) -> Path | tuple[Path, ...]:
        numbers = range(self.units)[index]
        if isinstance(numbers, range):
            return tuple(unit_folder(self.stage, number) / self.name for number in numbers)
        return unit_folder(self.stage, numbers) / self.name
