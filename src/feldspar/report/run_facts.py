"""Read what is known of a run from its folder: its length, who trains it, and how it ended."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from pathlib import Path
from typing import Any

from feldspar.core.errors import RunError
from feldspar.core.machine import host_digest
from feldspar.core.records import last_record, read_records, step_seconds
from feldspar.recipe.recorded import BAD_BATCHES_NAME, EVENTS_NAME, METRICS_NAME, TABLES_NAME
from feldspar.report.figures import number_of
from feldspar.report.run_summary import OVERALL, Summary, read_summary

BEGINNINGS = ("started", "resumed")

Records = Sequence[Mapping[str, Any]]


class State(StrEnum):
    """Stages of a run, as a page names them."""

    FINISHED = "finished"
    TRAINING = "training"
    UNFINISHED = "unfinished"
    DIVERGED = "diverged"
    UNKNOWN = "state not recorded"


@dataclass(frozen=True)
class Validation:
    """The last and the lowest figure of a run's validation; ``per`` names its unit."""

    last: float
    lowest: float
    lowest_at: float
    unit: str


@dataclass(frozen=True)
class RunFacts:
    """Facts of a run that a page gives before its curves."""

    name: str
    unit: str
    """Unit of the positions: tokens or images."""
    rows: Records
    state: State
    length: int | None
    """Position at which the run is finished, if it was recorded."""
    parameters: int | None
    date: str
    """Day on which the run last began or went on; empty if it was not recorded."""
    spikes: int
    skipped: int
    products: tuple[int, int] | None
    """Numbers of matrices that are multiplied sparse and that are masked; None without masks."""
    summary: Summary | None

    @property
    def position(self) -> int:
        """Position after the last recorded step."""
        return self.rows[-1][self.unit]

    @property
    def seconds(self) -> list[float]:
        """Seconds of training after each step, without validation and checkpoints."""
        return running_sum(step_seconds(self.rows, self.unit))

    @property
    def flops(self) -> list[float] | None:
        """FLOPs of training after each step; None for runs that did not record them."""
        flops = [number_of(row.get("step_flops")) for row in self.rows]
        return running_sum(flops) if all(map(math.isfinite, flops)) else None

    def validation(self, measure: str = "loss") -> Validation | None:
        """Return the mean figure over sources of the last and of the best validation."""
        key = f"validation/{measure}"
        found = [(number_of(row.get(key)), row[self.unit]) for row in self.rows]
        measured = [each for each in found if math.isfinite(each[0])]
        if not measured:
            return None
        lowest, place = min(measured)
        unit = "bits per byte" if measure == "bits_per_byte" else f"nats per {self.unit[:-1]}"
        return Validation(measured[-1][0], lowest, place, unit)

    @property
    def held_out(self) -> float | None:
        """Bits per byte of held-out documents, as the summary has it."""
        return None if self.summary is None else self.summary.bits_per_byte[OVERALL]


def running_sum(values: Sequence[float]) -> list[float]:
    """Return the sum of the values up to each place; values that are not finite count nothing."""
    return list(accumulate(value if math.isfinite(value) else 0.0 for value in values))


def read_facts(name: str, run: Path, rows: Records, unit: str) -> RunFacts:
    """Read the facts of a run, whose steps are ``rows``; what is damaged counts as not recorded."""
    events, last = list(read_records(run / EVENTS_NAME)), last_beginning(run)
    length = _count(last.get("length"))
    bad_steps = [_count(record.get("step")) or 0 for record in read_records(run / BAD_BATCHES_NAME)]
    ended_badly = max(bad_steps, default=0) > rows[-1]["step"]
    try:
        summary = read_summary(run)
    except RunError:
        summary = None
    return RunFacts(
        name=name,
        unit=unit,
        rows=rows,
        state=_state(rows[-1][unit], length, last, ended_badly),
        length=length,
        parameters=_count(last.get("parameters")) or counted_parameters(run / TABLES_NAME),
        date=str(last.get("time", ""))[:10],
        spikes=sum(event.get("event") == "spike" for event in events),
        skipped=len(bad_steps),
        products=_products(events),
        summary=summary,
    )


def last_beginning(run: Path) -> Mapping[str, Any]:
    """Return what the process that last began or resumed a run wrote; empty without a record."""
    last: Mapping[str, Any] = {}
    for event in read_records(run / EVENTS_NAME):
        last = event if event.get("event") in BEGINNINGS else last
    return last


def counted_parameters(path: Path) -> int | None:
    """Count the parameters in the table of a run's first phase; None without a readable table."""
    try:
        phases = json.loads(path.read_text(encoding="utf-8"))
        shapes = [tensor["shape"] for tensor in next(iter(phases.values()))["tensors"]]
        return sum(map(math.prod, shapes))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration):
        return None


def is_alive(beginning: Mapping[str, Any]) -> bool:
    """Tell whether the process that wrote a beginning still runs on this machine."""
    process = _count(beginning.get("process"))
    if not process or beginning.get("host") != host_digest():
        return False
    try:
        os.kill(process, 0)
    except PermissionError:
        return True  # it is another user's
    except (OSError, OverflowError):
        return False
    return True


def is_training(run: Path) -> bool:
    """Tell whether a process trains the run, by the last record; reads no other."""
    last, beginning = last_record(run / METRICS_NAME), last_beginning(run)
    length = _count(beginning.get("length"))
    if last is None or length is None:
        return False
    position = last.get("tokens", last.get("images", length))
    return position < length and is_alive(beginning)


def _state(
    position: int, length: int | None, beginning: Mapping[str, Any], ended_badly: bool
) -> State:
    """Return the state; a step that ended the run is among the bad ones and has no record."""
    if length is None:
        return State.UNKNOWN
    if position >= length:
        return State.FINISHED
    if is_alive(beginning):
        return State.TRAINING
    return State.DIVERGED if ended_badly else State.UNFINISHED


def _products(events: Records) -> tuple[int, int] | None:
    """Return the numbers of sparse products and of masked matrices, as a run last chose them."""
    found = None
    for event in events:
        matrices, masked = event.get("matrices"), _count(event.get("masked"))
        if event.get("event") == "products" and isinstance(matrices, list) and masked:
            found = len(matrices), masked
    return found


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
