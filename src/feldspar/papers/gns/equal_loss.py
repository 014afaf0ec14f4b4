"""Tokens and time to equal loss: held-out loss along runs of one schedule under several batches.

Time is modelled as a fixed cost a step and a cost a token, fitted to the measured steps of all
runs, so that what else the machine did during one of them does not count.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from feldspar.runtime.run_folder import RunFolder

LOSS = "validation/loss"
UNDISTURBED = 0.1
"""Quantile of the times of steps that stands for a machine with nothing else to do."""


@dataclass(frozen=True)
class Curve:
    """One run: held-out loss at some of its steps, (points,) each."""

    tokens: Sequence[float]
    losses: Sequence[float]
    n_steps: int
    """The steps of the whole run."""
    steps: Sequence[int] = ()
    """Empty where a record lacks them; then the run has no modelled time."""
    batches: Sequence[int] = ()
    """Sequences of the step at each point; empty where a record lacks them."""


@dataclass(frozen=True)
class StepTime:
    """Seconds = fixed_seconds x steps + seconds_per_token x tokens."""

    fixed_seconds: float
    seconds_per_token: float

    def of(self, curve: Curve) -> list[float]:
        """Return the modelled time of each point of a curve that knows its steps."""
        points = zip(curve.steps, curve.tokens, strict=True)
        return [self.fixed_seconds * steps + self.seconds_per_token * n for steps, n in points]


@dataclass(frozen=True)
class BatchRuns:
    """The runs of one batch schedule at its best learning rate, one a seed."""

    name: str
    rate: float | None
    """The base rate; None is the recipe's."""
    curves: tuple[Curve, ...]

    @property
    def final_losses(self) -> list[float]:
        """The final loss of each seed."""
        return [curve.losses[-1] for curve in self.curves]

    @property
    def has_steps(self) -> bool:
        """True where time can be modelled."""
        return all(curve.steps for curve in self.curves)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, seed after seed."""
        keys = ("tokens", "losses", "n_steps", "steps", "batches")
        by_seed = {key: [getattr(curve, key) for curve in self.curves] for key in keys}
        return {"rate": self.rate} | by_seed

    @classmethod
    def from_dict(cls, name: str, values: Mapping[str, Any]) -> "BatchRuns":
        """Read what ``as_dict`` wrote; steps and batches may lack."""
        nothing = [()] * len(values["tokens"])
        columns = [values[key] for key in ("tokens", "losses", "n_steps")]
        columns += [values.get(key, nothing) for key in ("steps", "batches")]
        return cls(name, values["rate"], tuple(Curve(*own) for own in zip(*columns, strict=True)))


def read_curve(run: Path) -> tuple[Curve, dict[int, list[float]]]:
    """Read a finished run's curve, and the seconds of its steps by tokens a step."""
    points: list[tuple[int, float, int, int]] = []
    times: dict[int, list[float]] = {}
    before = n_steps = 0
    for row in RunFolder(run).steps():
        tokens = row["tokens"] - before
        before, n_steps = row["tokens"], row["step"]
        times.setdefault(tokens, []).append(tokens / row["tokens_per_second"])
        if LOSS in row:
            points.append((before, row[LOSS], n_steps, row["sequences"]))
    tokens_at, losses, steps, batches = zip(*points, strict=True)
    return Curve(tokens_at, losses, n_steps, steps, batches), times


def fit_step_time(times: Sequence[Mapping[int, Sequence[float]]]) -> StepTime:
    """Fit a line to the fast steps of each batch size, weighted by the tokens behind them.

    ``times``: seconds of steps by tokens a step, of each run. One size gives no fixed cost. A step
    counts by the fastest tenth of its size: what slows whole runs down is another job.
    """
    joined: dict[int, list[float]] = {}
    for own in times:
        for tokens, seconds in own.items():
            joined.setdefault(tokens, []).extend(seconds)
    sizes = sorted(joined)
    fast = [float(np.quantile(joined[size], UNDISTURBED)) for size in sizes]
    if len(sizes) < 2:
        return StepTime(0.0, fast[0] / sizes[0])
    weights = [np.sqrt(size * len(joined[size])) / size for size in sizes]
    slope, fixed = np.polyfit(sizes, fast, 1, w=weights)
    if fixed < 0:
        return StepTime(0.0, fast[-1] / sizes[-1])
    return StepTime(float(fixed), float(slope))


def reached(places: Sequence[float], losses: Sequence[float], target: float) -> float | None:
    """Return the place where a curve first comes down to ``target``, or None."""
    if losses[0] <= target:
        return places[0]
    points = list(zip(places, losses, strict=True))
    for (start, high), (end, low) in itertools.pairwise(points):
        if low <= target:
            return start + (end - start) * (high - target) / (high - low)
    return None


def saved(
    places: Sequence[float],
    losses: Sequence[float],
    reference_places: Sequence[float],
    reference_losses: Sequence[float],
) -> float:
    """Return the share of the reference's whole way that is saved on the way to its final loss.

    Negative where that loss is not reached: then the reference is asked for the other's final
    loss, and what the other takes more is what is lost.
    """
    way = reached(places, losses, reference_losses[-1])
    if way is not None:
        return 1 - way / reference_places[-1]
    shorter = reached(reference_places, reference_losses, losses[-1])
    assert shorter is not None, "of two final losses one is not above the other"
    return 1 - places[-1] / shorter


def loss_at(places: Sequence[float], losses: Sequence[float], place: float) -> float:
    """Return the loss at a place of a curve, linear between its points."""
    return float(np.interp(place, places, losses))
