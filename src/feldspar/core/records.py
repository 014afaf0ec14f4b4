"""Write JSON objects one a line, and read them back even from a damaged file.

Each record is flushed, so that a killed process loses at most its last line. A ``Mark`` tells a
reader whether the records up to it are still there, and which ones are missing.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeGuard

from feldspar.core.files import disk_errors, write_atomically

MOST = 2**63
"""Steps and positions are smaller than this."""
TAIL_BYTES = 1 << 16
"""Bytes at the end of a file that certainly hold its last record."""


@dataclass(frozen=True)
class Mark:
    """The size and SHA-256 of a file of records at some moment."""

    bytes: int
    sha256: str

    def as_dict(self) -> dict[str, Any]:
        """Return its values as JSON."""
        return asdict(self)


class RecordFile:
    """Appends JSON objects to a file, one a line, and flushes each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            before = path.read_bytes() if path.is_file() else b""
            self._file = path.open("ab")
        self._bytes, self._digest = len(before), hashlib.sha256(before)
        if before and not before.endswith(b"\n"):
            self._write(b"\n")  # end a torn line, so that the next record starts on its own line

    def append(self, record: dict[str, Any]) -> None:
        """Write one record. Floats have full precision; those that are not finite are text."""
        self._write(json.dumps(_as_text(record), ensure_ascii=False).encode() + b"\n")

    def mark(self) -> Mark:
        """Return a mark that identifies everything written so far."""
        return Mark(self._bytes, self._digest.hexdigest())

    def sync(self) -> None:
        """Flush to the disk itself. Call this before writing a checkpoint that relies on the
        records.
        """
        with disk_errors(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file. Raises again if a full disk refused an earlier write."""
        with disk_errors(self._path):
            self._file.close()

    def _write(self, data: bytes) -> None:
        with disk_errors(self._path):
            self._file.write(data)
            self._file.flush()
        self._bytes += len(data)
        self._digest.update(data)


def step_seconds(rows: Sequence[Mapping[str, Any]], unit: str) -> list[float]:
    """Return the seconds of each recorded step, by the ``unit`` (tokens or images) a second.

    NaN stands where the record has no speed. Validation and checkpoints are not counted.
    """
    starts = [0, *(row[unit] for row in rows)]
    found = []
    for start, row in zip(starts, rows, strict=False):
        try:
            speed = float(row[f"{unit}_per_second"])
        except (KeyError, TypeError, ValueError, OverflowError):
            speed = math.nan
        found.append((row[unit] - start) / speed if speed > 0 else math.nan)
    return found


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Append one rare record and close the file again."""
    file = RecordFile(path)
    try:
        file.append(record)
    finally:
        file.close()


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file in order; skip lines that are not records. A missing file is
    empty.
    """
    for _, record in _lines(path):
        if record is not None:
            yield {
                key: _NON_FINITE.get(value, value) if isinstance(value, str) else value
                for key, value in record.items()
            }


def last_record(path: Path) -> dict[str, Any] | None:
    """Read the last whole record near the end of a file that is being written; None without one."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - TAIL_BYTES, 0))
        lines = file.read().splitlines(keepends=True)
    return next(filter(None, map(_record_of, reversed(lines))), None)


def read_steps(path: Path) -> list[dict[str, Any]]:
    """Read the records of a run's steps, in order: those with a step and a position."""
    steps: list[dict[str, Any]] = []
    for record in read_records(path):
        if _step_of(record) is not None and (not steps or record["step"] > steps[-1]["step"]):
            steps.append(record)
    return steps


@dataclass(frozen=True)
class Damage:
    """Faults found in the records of a run's steps."""

    missing: tuple[tuple[int, int], ...] = ()
    """The first and the last step of each gap."""
    unreadable: int = 0
    """The number of lines that are not the record of a step."""
    altered: bool = False
    """True if every record is there while some differ from what was written."""

    def __bool__(self) -> bool:
        return bool(self.missing or self.unreadable or self.altered)

    def __str__(self) -> str:
        gaps = ", ".join(f"{a:,}" if a == b else f"{a:,} to {b:,}" for a, b in self.missing)
        told = [f"no record of step {gaps}"] if gaps else []
        told += [f"{self.unreadable:,} unreadable lines"] if self.unreadable else []
        told += ["a value differs from what was written"] if self.altered else []
        return "; ".join(told)


def restore_steps(
    path: Path, step: int, position: int, unit: str, mark: Mark | None = None
) -> Damage:
    """Keep the records of the steps up to ``step``, which ended at ``position``; return the faults.

    ``mark`` is the file's mark at that step. Faults are not repaired: lines that are not records
    are dropped, gaps stay.
    """
    data = path.read_bytes() if path.is_file() else b""
    if mark is not None and hashlib.sha256(data[: mark.bytes]).hexdigest() == mark.sha256:
        if len(data) > mark.bytes:
            write_atomically(path, data[: mark.bytes])
        return Damage()
    kept, unreadable, last = [], 0, 0
    lines = list(_lines(path))
    for number, (line, record) in enumerate(lines):
        own = None if record is None else _step_of(record, unit)
        if own is not None and (own[0] > step or own[1] > position):
            continue
        if own is None or own[0] <= last:
            unreadable += number + 1 < len(lines)  # a torn last line is what a kill leaves
            continue
        kept.append(line)
        last = own[0]
    if len(kept) < len(lines):
        write_atomically(path, b"".join(kept))
    missing = gaps([json.loads(line)["step"] for line in kept], step)
    altered = mark is not None and not missing and not unreadable
    return Damage(missing, unreadable, altered)


def gaps(steps: Sequence[int], last: int) -> tuple[tuple[int, int], ...]:
    """Find the gaps that increasing ``steps`` leave in the numbers from 1 to ``last``."""
    ends = [0, *steps, last + 1]
    return tuple((a + 1, b - 1) for a, b in pairwise(ends) if b - a > 1)


def truncate_records(path: Path, position: int, unit: str) -> int:
    """Keep the records up to a position; return how many unreadable lines were dropped."""
    lines = list(_lines(path))
    kept = [
        line
        for line, record in lines
        if record is not None and _is_count(record.get(unit)) and record[unit] <= position
    ]
    if len(kept) < len(lines):
        write_atomically(path, b"".join(kept))
    return sum(record is None for _, record in lines[:-1])


def _step_of(record: dict[str, Any], unit: str | None = None) -> tuple[int, int] | None:
    """Return a record's step and position; None where it lacks one of them."""
    step, names = record.get("step"), (unit,) if unit else ("tokens", "images")
    positions = [value for name in names if _is_count(value := record.get(name))]
    return (step, positions[0]) if _is_count(step) and step > 0 and positions else None


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            yield line, _record_of(line)


def _record_of(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _as_text(value: Any) -> Any:
    """Replace floats that are not finite by text, which ``read_records`` turns back."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _as_text(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_text(item) for item in value]
    return value
