"""A run's folder: the recipe, the records of each step, and the lock that keeps a second run out.

The records are JSON lines, flushed line by line: a killed process loses at most a torn last line.
"""

import fcntl
import json
import math
import os
import socket
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from feldspar.core.errors import SetupError, UserError
from feldspar.core.files import disk_errors, write_atomically
from feldspar.core.progress import say

RECIPE_NAME = "recipe.yaml"
TABLES_NAME = "parametrization.json"
ADAPTATION_NAME = "adaptation.json"
METRICS_NAME = "metrics.jsonl"
EVENTS_NAME = "events.jsonl"
BAD_BATCHES_NAME = "bad_batches.jsonl"
CHECKPOINTS_NAME = "checkpoints"
LOCK_NAME = ".lock"


class RunFolder:
    """Paths and records of one run; only rank 0 writes."""

    def __init__(self, path: Path, counted: str = "tokens") -> None:
        self.path = path
        self.counted = counted
        """What a record's position in the run counts: tokens or images."""

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

    def read_recipe(self) -> str | None:
        """The resolved recipe that the run was started with; None for a new run."""
        path = self.path / RECIPE_NAME
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def write_recipe(self, text: str) -> None:
        """Save the resolved recipe."""
        write_atomically(self.path / RECIPE_NAME, text)

    def write_tables(self, tables: dict[str, Any]) -> None:
        """Save the parametrization's table of each phase, by its name."""
        write_atomically(self.path / TABLES_NAME, json.dumps(tables, indent=1) + "\n")

    def write_adaptation(self, record: dict[str, Any]) -> None:
        """Save what was done to the model that the run began with."""
        text = json.dumps(_json_safe(record), indent=1) + "\n"
        write_atomically(self.adaptation, text)

    def recorded_threads(self) -> int | None:
        """The number of threads that the run chose last at a start; None for a new run."""
        homes = [record["home"] for record in read_records(self.events) if "home" in record]
        return homes[-1] if homes else None

    def forget_after(self, tokens: int) -> None:
        """Drop step records beyond ``tokens``, those that the resumed run will write again."""
        for path in (self.metrics, self.bad_batches):
            truncate_records(path, tokens, self.counted)

    @contextmanager
    def lock(self) -> Generator[None]:
        """Keep other processes from training in this folder until the block ends.

        The system drops the lock of a process that died, so none is ever stale. Raises UserError
        when another process holds it, SetupError where the file system has no locks.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LOCK_NAME).open("a+", encoding="utf-8") as file:
            try:
                # lockf, not flock: a forked data worker that outlives us must not keep the lock.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                file.seek(0)
                raise UserError(
                    f"another process is training in {self.path}",
                    found=file.read() or "a process that gave no name",
                    do="wait for it or stop it, or choose another folder with --out",
                ) from error
            except OSError as error:
                raise SetupError(
                    f"the file system of {self.path} has no locks",
                    found=str(error),
                    do="choose a folder on another file system with --out",
                ) from error
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield


class RecordFile:
    """Appends JSON objects to a file, one a line, each flushed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")

    def append(self, record: dict[str, Any]) -> None:
        """Write one record; floats at full precision, those that are not finite as text."""
        with disk_errors(self._path):
            self._file.write(json.dumps(_json_safe(record), ensure_ascii=False) + "\n")
            self._file.flush()

    def sync(self) -> None:
        """Put what was written on the disk itself; do so before a checkpoint that relies on it."""
        with disk_errors(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; what a full disk has refused is refused here again."""
        with disk_errors(self._path):
            self._file.close()


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Append one rare record and close the file again."""
    file = RecordFile(path)
    try:
        file.append(record)
    finally:
        file.close()


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file in order; a torn line is left out. None when there is no file."""
    for _, record in _lines(path):
        if record is not None:
            yield {
                key: _NON_FINITE.get(value, value) if isinstance(value, str) else value
                for key, value in record.items()
            }


def truncate_records(path: Path, position: int, counted: str = "tokens") -> None:
    """Keep the records up to a position; torn lines go too, said when not the last."""
    lines = list(_lines(path))
    if not lines:
        return
    torn = sum(record is None for _, record in lines[:-1])
    if torn:
        say(f"{path}: {torn} unreadable lines were dropped")
    kept = [line for line, record in lines if record is not None and record[counted] <= position]
    if len(kept) < len(lines):
        write_atomically(path, b"".join(kept))


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                record = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                record = None
            yield line, record if isinstance(record, dict) else None


_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _json_safe(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_safe(item) for item in value]
    return value
