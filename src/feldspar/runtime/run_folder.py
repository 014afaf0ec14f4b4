"""A run's folder: recipe, records of each step, and the lock against a second process."""

import fcntl
import os
import socket
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from feldspar.core.errors import SetupError, UserError
from feldspar.core.files import disk_errors, remove_incomplete, write_atomically
from feldspar.core.json_files import write_json
from feldspar.core.progress import say
from feldspar.core.records import (
    Damage,
    Mark,
    read_records,
    read_steps,
    restore_steps,
    truncate_records,
)
from feldspar.recipe.recorded import (
    ADAPTATION_NAME,
    BAD_BATCHES_NAME,
    CHECKPOINTS_NAME,
    DRAWING_NAME,
    EVENTS_NAME,
    LOCK_NAME,
    METRICS_NAME,
    RECIPE_NAME,
    SUMMARY_NAME,
    TABLES_NAME,
    is_run,
)
from feldspar.recipe.top import PositionUnit

OWN_NAMES = (
    *(RECIPE_NAME, TABLES_NAME, ADAPTATION_NAME, METRICS_NAME, EVENTS_NAME, BAD_BATCHES_NAME),
    "tokenizer",
)
"""Files that training writes beside checkpoints."""


class RunFolder:
    """Paths and records of one run; only rank 0 writes."""

    def __init__(self, path: Path, position_unit: PositionUnit = "tokens") -> None:
        self.path = path
        self.position_unit = position_unit
        """Key of the position in each record: tokens or images."""

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / CHECKPOINTS_NAME

    @property
    def metrics(self) -> Path:
        """Records of the steps."""
        return self.path / METRICS_NAME

    @property
    def events(self) -> Path:
        """Events of the run: started, resumed, changed, stopped."""
        return self.path / EVENTS_NAME

    @property
    def bad_batches(self) -> Path:
        """Batches whose loss or gradient was not finite."""
        return self.path / BAD_BATCHES_NAME

    @property
    def adaptation(self) -> Path:
        """Changes of the model before the run, if there were any."""
        return self.path / ADAPTATION_NAME

    @property
    def holds_run(self) -> bool:
        """True if a run has begun here."""
        return is_run(self.path)

    @property
    def is_claimed(self) -> bool:
        """True if a process began to train here; it may have ended before it wrote anything
        else."""
        return (self.path / LOCK_NAME).is_file()

    def remove_incomplete(self) -> None:
        """Delete unfinished files of a killed process; only for the process that trains.

        Unfinished releases and exports are kept, because a live process may be writing them.
        """
        remove_incomplete(self.path, OWN_NAMES)

    def steps(self) -> list[dict[str, Any]]:
        """Read the records of the steps, in order; damaged ones are left out."""
        return read_steps(self.metrics)

    @property
    def holds_checkpoint(self) -> bool:
        """True if a checkpoint was finished; its files are not read."""
        return any(self.checkpoints.glob("*/manifest.json"))

    def write_recipe(self, text: str) -> None:
        """Save the resolved recipe."""
        write_atomically(self.path / RECIPE_NAME, text)

    def write_tables(self, tables: dict[str, Any]) -> None:
        """Write the parametrization table of each phase, by the phase's name."""
        write_json(self.path / TABLES_NAME, tables, indent=1)

    def write_adaptation(self, record: Mapping[str, Any]) -> None:
        """Save the changes of the model before the run."""
        write_json(self.adaptation, record, indent=1)

    def recorded_threads(self) -> int | None:
        """Return the number of threads that the run chose at its last start; None for a new run."""
        found = (record.get("home") for record in read_records(self.events))
        homes = [home for home in found if isinstance(home, int) and home > 0]
        return homes[-1] if homes else None

    def forget(self) -> None:
        """Delete the records of steps if there is no checkpoint of them."""
        if steps := len(self.steps()):
            say(f"{self.path} has no checkpoint of its {steps:,} steps, so the run starts again")
        for path in (self.metrics, self.bad_batches):
            path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete all records of an earlier run, and what was measured on it."""
        records = (self.metrics, self.bad_batches, self.events, self.adaptation)
        for path in (*records, self.path / SUMMARY_NAME, self.path / DRAWING_NAME):
            path.unlink(missing_ok=True)

    def restore(self, step: int, position: int, mark: Mapping[str, Any] | None = None) -> Damage:
        """Delete the records after a step; the resumed run writes them again.

        ``mark`` is the checkpoint's mark of the records at that step (``Mark.as_dict``). Prints a
        warning if earlier records are damaged.
        """
        expected = None if mark is None else Mark(**mark)
        damage = restore_steps(self.metrics, step, position, self.position_unit, expected)
        if damage:
            say(
                f"warning: {self.metrics} is damaged: {damage}; the run continues, but "
                "its figures and reports lack these records"
            )
        if dropped := truncate_records(self.bad_batches, position, self.position_unit):
            say(f"warning: {self.bad_batches}: {dropped} unreadable lines were deleted")
        return damage

    @contextmanager
    def lock(self) -> Generator[None]:
        """Keep other processes from training in this folder until the block ends.

        The system releases the lock of a process that died, so a lock is never stale. Raises
        UserError if another process holds the lock, and SetupError if the file system has no locks.
        """
        path = self.path / LOCK_NAME
        with disk_errors(path):
            self.path.mkdir(parents=True, exist_ok=True)
            file = path.open("a+b", buffering=0)
        with file:
            try:
                # lockf, not flock: a forked data worker that outlives us must not keep the lock.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                file.seek(0)
                raise UserError(
                    f"another process is training in {self.path}",
                    found=file.read().decode("utf-8", "replace") or "a process that gave no name",
                    do="wait for it or stop it, or choose another folder with --out",
                ) from error
            except OSError as error:
                raise SetupError(
                    f"the file system of {self.path} does not support locks",
                    found=str(error),
                    do="choose a folder on another file system with --out",
                ) from error
            with disk_errors(path):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
            yield


def require_run(path: Path) -> None:
    """Raise UserError if ``path`` is not a run with a checkpoint; loads no torch."""
    if not path.is_dir():
        raise UserError(f"{path} is not a run folder: it does not exist")
    folder = RunFolder(path)
    if not folder.holds_run:
        raise UserError(f"{path} is not a run folder: it has no {RECIPE_NAME} and no checkpoint")
    if not folder.holds_checkpoint:
        raise UserError(f"{path} has no checkpoint yet", do=f"train it: feldspar train {path}")
