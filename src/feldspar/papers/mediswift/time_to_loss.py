"""Losses of pre-training against seconds: how soon an arm has the loss that another one ends with.

Seconds are the median processor time of an arm's steps (``step_time``), times the number of steps:
training alone, without validation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

from feldspar.core.records import step_seconds
from feldspar.papers.kit.gain import Gain
from feldspar.papers.kit.validation_curve import validation_curve
from feldspar.runtime.run_folder import RunFolder
from feldspar.study.trials import TrialResult


@dataclass(frozen=True)
class Pretraining:
    """One arm's pre-training: held-out bits per byte along the run, by seed, and its time."""

    steps: tuple[int, ...]
    """The steps after which the loss was measured; the last one is the end."""
    bits_per_byte: tuple[tuple[float, ...], ...]
    """At each of ``steps``, for each seed."""
    tokens: int
    """Tokens of the whole arm, of one seed."""
    step_seconds: float
    """The median processor time of a step."""
    clock_seconds: float
    """The median time of a step on the clock, beside another run."""

    @classmethod
    def of_runs(cls, runs: Sequence[TrialResult], step_seconds: float) -> "Pretraining":
        """Read the runs of an arm, one for each seed."""
        curves = [validation_curve(run.folder) for run in runs]
        return cls(
            tuple(each.step for each in curves[0]),
            tuple(tuple(fmean(each.bits_per_byte.values()) for each in own) for own in curves),
            runs[0].tokens,
            step_seconds,
            median(seconds for run in runs for seconds in clock_seconds(run.folder)),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Pretraining":
        """Read the plain values of a record."""
        return cls(
            tuple(values["steps"]),
            tuple(map(tuple, values["bits_per_byte"])),
            values["tokens"],
            values["step_seconds"],
            values["clock_seconds"],
        )

    @property
    def seconds(self) -> tuple[float, ...]:
        """The time of each measured loss."""
        return tuple(self.step_seconds * step for step in self.steps)

    @property
    def final(self) -> tuple[float, ...]:
        """The loss at the end, by seed."""
        return tuple(own[-1] for own in self.bits_per_byte)

    @property
    def mean_curve(self) -> tuple[float, ...]:
        """The mean over the seeds of each measured loss."""
        return tuple(map(fmean, zip(*self.bits_per_byte, strict=True)))

    def seconds_to(self, losses: Sequence[float]) -> list[float | None]:
        """Return when each seed first has its loss of ``losses``; None where it never has.

        Between two measured losses the curve is taken as straight.
        """
        return [
            first_time(self.seconds, own, loss)
            for own, loss in zip(self.bits_per_byte, losses, strict=True)
        ]


def time_saved(arm: Pretraining, reference: Pretraining) -> Gain | None:
    """Return the share of ``reference``'s time that ``arm`` saves until it has the same loss.

    It is the loss that ``reference`` ends with, seed by seed. None where a seed never has it.
    """
    found = arm.seconds_to(reference.final)
    times = [time for time in found if time is not None]
    if len(times) < len(found):
        return None
    return Gain.of(times, [reference.seconds[-1]] * len(times))


def steps_saved(arm: Pretraining, reference: Pretraining) -> Gain | None:
    """Return the share of ``reference``'s steps that ``arm`` saves until it has the same loss.

    It is what would be left of ``time_saved`` if all steps took the same time.
    """
    return time_saved(replace(arm, step_seconds=1.0), replace(reference, step_seconds=1.0))


def first_time(times: Sequence[float], losses: Sequence[float], wanted: float) -> float | None:
    """Return the time at which straight lines through the losses first reach ``wanted``."""
    if losses[0] <= wanted:
        return times[0]
    for (begin, before), (end, after) in pairwise(zip(times, losses, strict=True)):
        if after <= wanted:
            return begin + (end - begin) * (before - wanted) / (before - after)
    return None


def clock_seconds(run: Path) -> list[float]:
    """Return the seconds of each training step of a run, on the clock."""
    return step_seconds(RunFolder(run).steps(), "tokens")
