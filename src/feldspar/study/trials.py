"""Train trials side by side: runs of one recipe with different overrides, each in a run folder.

A finished trial leaves ``trial.json`` in its folder, which is read the next time. A trial that was
interrupted continues from its last checkpoint. A trial whose loss is no longer finite is finished
too; its score is infinite.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from feldspar.core.errors import NonFiniteError, UserError, nearest
from feldspar.core.execution import available_cores
from feldspar.core.json_files import json_values, read_json, write_json
from feldspar.core.progress import progress, say
from feldspar.core.records import last_record
from feldspar.plan.sources import resolve_mixtures
from feldspar.plan.summary import plan_recipe
from feldspar.recipe.load import LoadedRecipe, load_recipe
from feldspar.recipe.root import Recipe
from feldspar.runtime.device import choose_device
from feldspar.runtime.run_folder import RunFolder
from feldspar.study.workers import run_side_by_side
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.train.data import open_shards, source_tokens, with_vocabulary
from feldspar.train.run import train

RESULT_NAME = "trial.json"
TRAIN_LOSS = "train/loss"
MEASURES = ("loss", "bits_per_byte")
"""Measures of validation for each source and for all."""
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
    seconds: float

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
    def loaded(self) -> LoadedRecipe:
        """Recipe of the trial, without its study, so that other targets do not change the
        digest."""
        loaded = load_recipe(self.recipe, [*ALWAYS, *self.trial.overrides])
        return replace(loaded, recipe=loaded.recipe.model_copy(update={"study": None}))


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
    that do not fit the recipe or the shards, for a score that runs do not measure, and for a
    finished trial of another recipe.
    """
    names = sorted(trial.name for trial in trials)
    doubled = next((earlier for earlier, later in pairwise(names) if earlier == later), None)
    if doubled is not None:
        raise UserError(f"two trials are named {doubled}")
    units = [_Unit(recipe, trial, folder / trial.name, score) for trial in trials]
    total_tokens = [_check(unit) for unit in units]
    results = {index: result for index, unit in enumerate(units) if (result := _finished(unit))}
    missing = [index for index in range(len(units)) if index not in results]
    if results and missing:
        say(f"{len(results)} of {len(units)} trials are done already")
    todo = [units[index] for index in missing]
    if workers <= 1 or len(todo) <= 1:
        running = _one_by_one(todo)
    else:
        running = _watched(todo, [total_tokens[index] for index in missing], workers)
    with closing(running):
        for place, result in running:
            results[missing[place]] = result
            say(_line(result, score, len(results), len(units)))
    return [results[index] for index in range(len(units))]


def default_workers(recipe: Recipe) -> int:
    """Return the default number of parallel trials: one per CPU core, or one on a GPU."""
    return available_cores() if choose_device(recipe.runtime).type == "cpu" else 1


def check_trial(recipe: str, overrides: Sequence[str], score: str = TRAIN_LOSS) -> LoadedRecipe:
    """Return the recipe of a run with ``overrides`` if it can be trained.

    Raises UserError as ``run_trials`` does.
    """
    unit = _Unit(recipe, Trial("", tuple(overrides)), Path(), score)
    _check(unit)
    return unit.loaded


def _check(unit: _Unit) -> int:
    """Return the trial's training tokens. Raises UserError for what training would refuse."""
    loaded = unit.loaded
    with loaded.locating_errors():
        shards = open_shards(loaded.recipe)
        recipe = with_vocabulary(loaded, shards.vocab_size).recipe
        sizes = source_tokens(shards, recipe)
        timeline = plan_recipe(recipe, sizes).timeline
        resolve_mixtures(recipe, timeline, sizes)
    _check_score(unit.score, recipe, shards)
    return timeline.length


def _check_score(score: str, recipe: Recipe, shards: ShardSet) -> None:
    holdout = recipe.evaluation.holdout
    available = shards.sources("validation") if "validation" in shards.splits else []
    sources = available if holdout == "all" else holdout
    places = ["validation", *(f"validation/{name}" for name in sources)] if sources else []
    known = [TRAIN_LOSS, *(f"{place}/{kind}" for place in places for kind in MEASURES)]
    if score not in known:
        hint = nearest(score, known)
        raise UserError(
            f"study.score: unknown metric {score!r}"
            + (f"; did you mean {hint!r}?" if hint else ""),
            allowed=known,
        )


def _one_by_one(units: Sequence[_Unit]) -> Generator[tuple[int, TrialResult], None, None]:
    for index, unit in enumerate(units):
        say(f"trial {unit.trial.name}")
        yield index, _run_trial(unit)


def _watched(
    units: Sequence[_Unit], total_tokens: Sequence[int], workers: int
) -> Generator[tuple[int, TrialResult], None, None]:
    """Yield results of worker processes, with a progress bar that also moves within trials."""
    shown = 0.0
    with progress("trials", len(units), "trials") as advance:

        def watch() -> None:
            nonlocal shown
            done = sum(
                _last_tokens(unit.folder) / total
                for unit, total in zip(units, total_tokens, strict=True)
            )
            advance(max(done - shown, 0.0))
            shown = max(done, shown)

        yield from run_side_by_side(_run_trial, units, workers, watch)


def _last_tokens(folder: Path) -> int:
    record = last_record(RunFolder(folder).metrics)
    return record["tokens"] if record else 0


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
        metrics = train(unit.loaded, unit.folder).metrics
    except NonFiniteError:
        diverged = True
    steps = RunFolder(unit.folder).steps()
    metrics |= {TRAIN_LOSS: _mean_of_last([step[TRAIN_LOSS] for step in steps])}
    return {
        "digest": unit.loaded.digest,
        "shards": open_shards(unit.loaded.recipe).digest,
        "diverged": diverged,
        "metrics": json_values(metrics),
        "tokens": steps[-1]["tokens"] if steps else 0,
        "seconds": _seconds(steps),
    }


def _mean_of_last(losses: Sequence[float]) -> float:
    last = losses[-max(round(SCORED_SHARE * len(losses)), 1) :]
    return sum(last) / len(last) if last else math.inf


def _seconds(steps: Sequence[Mapping[str, Any]]) -> float:
    """Return the time of the steps, without validation and checkpoints."""
    starts = [0, *(step["tokens"] for step in steps[:-1])]
    return sum(
        (step["tokens"] - start) / step["tokens_per_second"]
        for start, step in zip(starts, steps, strict=True)
    )


def _finished(unit: _Unit) -> TrialResult | None:
    """Return the result of a trial that is finished, else None."""
    path = unit.folder / RESULT_NAME
    if not path.is_file():
        return None
    record = read_json(path)
    if record["digest"] != unit.loaded.digest:
        raise UserError(
            f"{unit.folder} holds a finished trial of another recipe or other overrides",
            do="choose another folder, or delete that one",
        )
    if record["shards"] != open_shards(unit.loaded.recipe).digest:
        raise UserError(
            f"{unit.folder} holds a finished trial that was trained on other shards",
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
        tokens=record["tokens"],
        seconds=record["seconds"],
    )
