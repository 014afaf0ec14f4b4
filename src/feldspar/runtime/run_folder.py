"""A run's folder: recipe, records of each step, and the lock that keeps a second run out."""

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
    CHECKPOINTS_NAME,
    METRICS_NAME,
    RECIPE_NAME,
    SUMMARY_NAME,
    is_run,
)
from feldspar.recipe.top import PositionUnit

TABLES_NAME = "parametrization.json"
ADAPTATION_NAME = "adaptation.json"
EVENTS_NAME = "events.jsonl"
BAD_BATCHES_NAME = "bad_batches.jsonl"
LOCK_NAME = ".lock"
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
        """Where the checkpoints are."""
        return self.path / CHECKPOINTS_NAME

    @property
    def metrics(self) -> Path:
        """One record a step."""
        return self.path / METRICS_NAME

    @property
    def events(self) -> Path:
        """What happened to the run: started, resumed, changed, stopped."""
        return self.path / EVENTS_NAME

    @property
    def bad_batches(self) -> Path:
        """Batches whose loss or gradient was not finite."""
        return self.path / BAD_BATCHES_NAME

    @property
    def adaptation(self) -> Path:
        """What was done to the model that the run began with, where anything was."""
        return self.path / ADAPTATION_NAME

    @property
    def holds_run(self) -> bool:
        """Tell whether a run began here."""
        return is_run(self.path)

    @property
    def is_claimed(self) -> bool:
        """Tell whether a process began to train here; it may have ended before it wrote more."""
        return (self.path / LOCK_NAME).is_file()

    def remove_incomplete(self) -> None:
        """Delete what a killed process left half-written here; only for the process that trains.

        Half-written releases and exports may belong to a process that is alive.
        """
        remove_incomplete(self.path, OWN_NAMES)

    def steps(self) -> list[dict[str, Any]]:
        """Read the records of the steps, in order; what is damaged is left out."""
        return read_steps(self.metrics)

    @property
    def holds_checkpoint(self) -> bool:
        """Tell whether a checkpoint was finished; its files are not read."""
        return any(self.checkpoints.glob("*/manifest.json"))

    def write_recipe(self, text: str) -> None:
        """Save the resolved recipe."""
        write_atomically(self.path / RECIPE_NAME, text)

    def write_tables(self, tables: dict[str, Any]) -> None:
        """Save the parametrization's table of each phase, by its name."""
        write_json(self.path / TABLES_NAME, tables, indent=1)

    def write_adaptation(self, record: Mapping[str, Any]) -> None:
        """Save what was done to the model that the run began with."""
        write_json(self.adaptation, record, indent=1)

    def recorded_threads(self) -> int | None:
        """Return the number of threads that the run chose last at a start; None for a new run."""
        found = (record.get("home") for record in read_records(self.events))
        homes = [home for home in found if isinstance(home, int) and home > 0]
        return homes[-1] if homes else None

    def forget(self) -> None:
        """Drop the records of steps that no checkpoint has kept."""
        if steps := len(self.steps()):
            say(f"{self.path} holds no checkpoint of its {steps:,} steps: the run starts anew")
        for path in (self.metrics, self.bad_batches):
            path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete all records of an earlier run, and what was measured of it."""
        records = (self.metrics, self.bad_batches, self.events)
        for path in (*records, self.adaptation, self.path / SUMMARY_NAME):
            path.unlink(missing_ok=True)

    def restore(self, step: int, position: int, mark: Mapping[str, Any] | None = None) -> Damage:
        """Drop what was recorded after a step, which the resumed run records again.

        ``mark`` is what the checkpoint at that step keeps of the records (``Mark.as_dict``). What
        is wrong with the records before is said.
        """
        expected = None if mark is None else Mark(**mark)
        damage = restore_steps(self.metrics, step, position, self.position_unit, expected)
        if damage:
            say(
                f"warning: {self.metrics} is damaged: {damage}; the run goes on, its figures and "
                "reports leave out what is missing"
            )
        if dropped := truncate_records(self.bad_batches, position, self.position_unit):
            say(f"warning: {self.bad_batches}: {dropped} unreadable lines were dropped")
        return damage

    @contextmanager
    def lock(self) -> Generator[None]:
        """Keep other processes from training in this folder until the block ends.

        The system drops the lock of a process that died, so none is ever stale. Raises UserError
        when another process holds it, SetupError where the file system has no locks.
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
                    f"the file system of {self.path} has no locks",
                    found=str(error),
                    do="choose a folder on another file system with --out",
                ) from error
            with disk_errors(path):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
            yield


def require_run(path: Path) -> None:
    """Raise UserError where ``path`` is no run with a checkpoint, before torch is loaded."""
    if not path.is_dir():
        raise UserError(f"{path} is no run folder: there is no such folder")
    folder = RunFolder(path)
    if not folder.holds_run:
        raise UserError(f"{path} is no run folder: it holds no {RECIPE_NAME} and no checkpoint")
    if not folder.holds_checkpoint:
        raise UserError(f"{path} holds no checkpoint yet", do=f"train it: feldspar train {path}")
