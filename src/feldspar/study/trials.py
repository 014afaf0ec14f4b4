"""Train trials side by side: runs of one recipe with different overrides, each in a run folder.

The recipe is one of a language model or of a vision model.

A finished trial leaves ``trial.json`` in its folder, which is read the next time. A trial that was
interrupted continues from its last checkpoint. A trial whose loss is no longer finite is finished
too; its score is infinite.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from feldspar.core.errors import NonFiniteError, UserError
from feldspar.core.execution import available_cores
from feldspar.core.json_files import json_values, read_json, write_json
from feldspar.core.progress import progress, say
from feldspar.core.records import last_record
from feldspar.recipe.root import Recipe
from feldspar.recipe.top import PositionUnit
from feldspar.runtime.device import choose_device
from feldspar.runtime.run_folder import RunFolder
from feldspar.study.trial_run import TRAIN_LOSS, AnyRun, run_of
from feldspar.study.workers import run_side_by_side

RESULT_NAME = "trial.json"
SCORED_SHARE = 0.2
ALWAYS = ("runtime.trackers=[]", "runtime.threads=1", "checkpoints.keep.last=1")
"""Settings of all trials, because there are many: one thread, no dashboards, only the newest
checkpoint."""


@dataclass(frozen=True)
class Trial:
    """One run: the name of its folder and its overrides, ``key=value``."""

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class TrialResult:
    """A finished trial; ``score`` is infinite if the run diverged."""

    trial: Trial
    folder: Path
    score: float
    metrics: dict[str, float]
    tokens: int
    """Training tokens; 0 for a run on images."""
    seconds: float
    images: int = 0
    """Training images; 0 for a run on text."""

    @property
    def diverged(self) -> bool:
        """True if the loss became infinite or NaN."""
        return not math.isfinite(self.score)


@dataclass(frozen=True)
class _Unit:
    """A trial with all data that a worker process needs."""

    recipe: str
    trial: Trial
    folder: Path
    score: str

    @cached_property
    def run(self) -> AnyRun:
        """The run of the trial."""
        return run_of(self.recipe, [*ALWAYS, *self.trial.overrides])


def run_trials(
    recipe: str,
    trials: Sequence[Trial],
    folder: Path,
    *,
    score: str = TRAIN_LOSS,
    workers: int = 1,
) -> list[TrialResult]:
    """Train all trials of ``recipe`` (file or shipped name) in ``folder``; return results in order.

    Each worker is a process of one thread; with one worker, this process is used. Errors are found
    before the first step where possible. Raises UserError for two trials of one name, for overrides
    that do not fit the recipe or its data, for a score that runs do not measure, and for a
    finished trial of another recipe.
    """
    names = sorted(trial.name for trial in trials)
    doubled = next((earlier for earlier, later in pairwise(names) if earlier == later), None)
    if doubled is not None:
        raise UserError(f"two trials are named {doubled}")
    units = [_Unit(recipe, trial, folder / trial.name, score) for trial in trials]
    lengths = [unit.run.check(score) for unit in units]
    results = {index: result for index, unit in enumerate(units) if (result := _finished(unit))}
    missing = [index for index in range(len(units)) if index not in results]
    if results and missing:
        say(f"{len(results)} of {len(units)} trials are done already")
    todo = [units[index] for index in missing]
    if workers <= 1 or len(todo) <= 1:
        running = _one_by_one(todo)
    else:
        running = _watched(todo, [lengths[index] for index in missing], workers)
    with closing(running):
        for place, result in running:
            results[missing[place]] = result
            say(_line(result, score, len(results), len(units)))
    return [results[index] for index in range(len(units))]


def default_workers(recipe: Recipe) -> int:
    """Return the default number of parallel trials: one per CPU core, or one on a GPU."""
    return available_cores() if choose_device(recipe.runtime).type == "cpu" else 1


def check_trial(recipe: str, overrides: Sequence[str], score: str = TRAIN_LOSS) -> None:
    """Raise UserError, as ``run_trials`` does, for a run with ``overrides`` that cannot be
    trained."""
    run_of(recipe, [*ALWAYS, *overrides]).check(score)


def _one_by_one(units: Sequence[_Unit]) -> Generator[tuple[int, TrialResult], None, None]:
    for index, unit in enumerate(units):
        say(f"trial {unit.trial.name}")
        yield index, _run_trial(unit)


def _watched(
    units: Sequence[_Unit], lengths: Sequence[int], workers: int
) -> Generator[tuple[int, TrialResult], None, None]:
    """Yield results of worker processes, with a progress bar that also moves within trials."""
    shown = 0.0
    with progress("trials", len(units), "trials") as advance:

        def watch() -> None:
            nonlocal shown
            done = sum(
                _last_position(unit) / length for unit, length in zip(units, lengths, strict=True)
            )
            advance(max(done - shown, 0.0))
            shown = max(done, shown)

        yield from run_side_by_side(_run_trial, units, workers, watch)


def _last_position(unit: _Unit) -> int:
    record = last_record(RunFolder(unit.folder).metrics)
    return record[unit.run.loaded.recipe.position_unit] if record else 0


def _line(result: TrialResult, score: str, done: int, total: int) -> str:
    outcome = "diverged" if result.diverged else f"{score} {result.score:.4f}"
    return f"{done} of {total} trials: {result.trial.name}: {outcome}, {result.seconds:.1f} s"


def _run_trial(unit: _Unit) -> TrialResult:
    """Train one trial to its end."""
    record = _train(unit)
    write_json(unit.folder / RESULT_NAME, record)
    return _result(unit, record)


def _train(unit: _Unit) -> dict[str, Any]:
    diverged = False
    metrics: dict[str, float] = {}
    try:
        metrics = unit.run.train(unit.folder)
    except NonFiniteError:
        diverged = True
    steps, position = RunFolder(unit.folder).steps(), unit.run.loaded.recipe.position_unit
    metrics |= {TRAIN_LOSS: _mean_of_last([step[TRAIN_LOSS] for step in steps])}
    return {
        "digest": unit.run.loaded.digest,
        unit.run.data_key: unit.run.data_digest(),
        "diverged": diverged,
        "metrics": json_values(metrics),
        position: steps[-1][position] if steps else 0,
        "seconds": _seconds(steps, position),
    }


def _mean_of_last(losses: Sequence[float]) -> float:
    last = losses[-max(round(SCORED_SHARE * len(losses)), 1) :]
    return sum(last) / len(last) if last else math.inf


def _seconds(steps: Sequence[Mapping[str, Any]], position: PositionUnit) -> float:
    """Return the time of the steps, without validation and checkpoints."""
    starts = [0, *(step[position] for step in steps[:-1])]
    return sum(
        (step[position] - start) / step[f"{position}_per_second"]
        for start, step in zip(starts, steps, strict=True)
    )


def _finished(unit: _Unit) -> TrialResult | None:
    """Return the result of a trial that is finished, else None."""
    path = unit.folder / RESULT_NAME
    if not path.is_file():
        return None
    record = read_json(path)
    if record["digest"] != unit.run.loaded.digest:
        raise UserError(
            f"{unit.folder} holds a finished trial of another recipe or other overrides",
            do="choose another folder, or delete that one",
        )
    if record[unit.run.data_key] != unit.run.data_digest():
        raise UserError(
            f"{unit.folder} holds a finished trial that was trained on other data",
            do="choose another folder, or delete that one",
        )
    return _result(unit, record)


def _result(unit: _Unit, record: Mapping[str, Any]) -> TrialResult:
    metrics = {
        name: math.inf if value is None else value for name, value in record["metrics"].items()
    }
    diverged = record["diverged"]
    if unit.score not in metrics and not diverged:
        raise UserError(
            f"study.score: the run has no metric {unit.score!r}", allowed=sorted(metrics)
        )
    return TrialResult(
        trial=unit.trial,
        folder=unit.folder,
        score=math.inf if diverged else metrics[unit.score],
        metrics=metrics,
        tokens=record.get("tokens", 0),
        seconds=record["seconds"],
        images=record.get("images", 0),
    )
