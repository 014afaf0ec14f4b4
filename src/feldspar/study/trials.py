"""Trials: runs of one recipe under different overrides, side by side, each a run folder.

A trial that is done leaves ``trial.json`` in its folder and is read from there the next time; one
that was interrupted goes on from its last checkpoint. A trial whose loss is no longer finite is
done too: its score is infinite.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from feldspar.core.errors import NonFiniteError, UserError
from feldspar.core.execution import executor
from feldspar.core.files import write_atomically
from feldspar.core.progress import progress
from feldspar.recipe.load import LoadedRecipe, load_recipe
from feldspar.runtime.run_folder import RunFolder

RESULT_NAME = "trial.json"
TRAIN_LOSS = "train/loss"
SCORED_SHARE = 0.2
ALWAYS = ("runtime.trackers=[]", "runtime.threads=1", "checkpoints.keep.last=1")
"""Trials are many: one thread each, no dashboards, no checkpoint but the newest."""


@dataclass(frozen=True)
class Trial:
    """One run: the name of its folder and its overrides, ``key=value``."""

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class TrialResult:
    """A finished trial; ``score`` is infinite where the run diverged."""

    trial: Trial
    folder: Path
    score: float
    metrics: dict[str, float]
    tokens: int
    seconds: float

    @property
    def diverged(self) -> bool:
        """Whether the loss left the finite numbers."""
        return not math.isfinite(self.score)


@dataclass(frozen=True)
class _Unit:
    """A trial with all that a worker process needs."""

    recipe: str
    trial: Trial
    folder: Path
    score: str

    @property
    def overrides(self) -> list[str]:
        return [*ALWAYS, *self.trial.overrides]


def run_trials(
    recipe: str,
    trials: Sequence[Trial],
    folder: Path,
    *,
    score: str = TRAIN_LOSS,
    workers: int = 1,
) -> list[TrialResult]:
    """Train every trial of ``recipe`` (file or shipped name) in ``folder``; results in their order.

    Each worker is a process of one thread. Raises UserError for two trials of one name, for
    overrides that the recipe refuses, and where a finished trial was another one.
    """
    names = sorted(trial.name for trial in trials)
    doubled = next((earlier for earlier, later in pairwise(names) if earlier == later), None)
    if doubled is not None:
        raise UserError(f"two trials are named {doubled}")
    units = [_Unit(recipe, trial, folder / trial.name, score) for trial in trials]
    for unit in units:
        load_recipe(unit.recipe, unit.overrides)
    results = []
    with (
        executor(min(workers, len(units))) as pool,
        progress("trials", len(units), "trials") as advance,
    ):
        for result in pool.map(_run_trial, units):
            results.append(result)
            advance(1)
    return results


def _run_trial(unit: _Unit) -> TrialResult:
    """Train one trial to its end, or read what it came to."""
    loaded = load_recipe(unit.recipe, unit.overrides)
    record = _read(unit.folder, loaded.digest)
    if record is None:
        record = _train(unit, loaded)
        write_atomically(unit.folder / RESULT_NAME, json.dumps(record, indent=2) + "\n")
    metrics = {name: _finite_or_infinite(value) for name, value in record["metrics"].items()}
    if unit.score not in metrics and not record["diverged"]:
        raise UserError(f"study.score: the runs measure no {unit.score!r}", allowed=sorted(metrics))
    return TrialResult(
        trial=unit.trial,
        folder=unit.folder,
        score=math.inf if record["diverged"] else metrics[unit.score],
        metrics=metrics,
        tokens=record["tokens"],
        seconds=record["seconds"],
    )


def _train(unit: _Unit, loaded: LoadedRecipe) -> dict[str, Any]:
    from feldspar.train import train

    diverged = False
    metrics: dict[str, float] = {}
    try:
        metrics = train(loaded, unit.folder).metrics
    except NonFiniteError:
        diverged = True
    steps = _steps(unit.folder)
    metrics |= {TRAIN_LOSS: _mean_of_last(steps)}
    return {
        "digest": loaded.digest,
        "diverged": diverged,
        "metrics": {
            name: value if math.isfinite(value) else None for name, value in metrics.items()
        },
        "tokens": steps[-1]["tokens"] if steps else 0,
        "seconds": _seconds(steps),
    }


def _steps(folder: Path) -> list[dict[str, Any]]:
    path = RunFolder(folder).metrics
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _mean_of_last(steps: list[dict[str, Any]]) -> float:
    losses = [step[TRAIN_LOSS] for step in steps]
    last = losses[-max(round(SCORED_SHARE * len(losses)), 1) :]
    return sum(last) / len(last) if last else math.inf


def _seconds(steps: list[dict[str, Any]]) -> float:
    """The time of the steps alone, without validation and checkpoints."""
    starts = [0, *(step["tokens"] for step in steps[:-1])]
    return sum(
        (step["tokens"] - start) / step["tokens_per_second"]
        for start, step in zip(starts, steps, strict=True)
    )


def _read(folder: Path, digest: str) -> dict[str, Any] | None:
    path = folder / RESULT_NAME
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["digest"] != digest:
        raise UserError(
            f"{folder} holds a finished trial of another recipe or other overrides",
            do="choose another folder, or delete that one",
        )
    return record


def _finite_or_infinite(value: float | None) -> float:
    return math.inf if value is None else value
