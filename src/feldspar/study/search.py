"""Search on the proxy: draw values of ``study.vary``, train a run for each, learn from the scores.

The draws depend on the recipe's seed, on ``study`` and on the scores. They do not depend on the
number of workers or on where an earlier search stopped. The same search again draws the same
values, reads finished runs and trains the others. A larger number of trials continues a smaller
search.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Protocol

from feldspar.core.errors import RunError, UserError, missing_extra
from feldspar.core.progress import say
from feldspar.core.streams import numpy_stream, stream_seed
from feldspar.recipe.load import LoadedRecipe, load_recipe
from feldspar.recipe.sections.study import Range, StudySettings
from feldspar.recipe.tree import origin_of
from feldspar.study.sweep import SweepPoint, as_overrides, trial_of
from feldspar.study.trials import run_trials

STREAM = "study.search"
COMBINATIONS = 100_000
"""With more combinations than this, values are drawn instead of listed."""
ROUND_TRIALS = 4
STARTUP_TRIALS = 8
"""Number of random trials before the estimator is used."""

Values = dict[str, Any]
Choice = Range | tuple[Any, ...]


class Sampler(Protocol):
    """Source of the values of trials."""

    def draw(self, count: int) -> list[Values]:
        """Return the values of the next trials; fewer than ``count`` if there are no others."""
        ...

    def learn(self, scores: Sequence[float]) -> None:
        """Learn the scores of the last drawn trials, in order; infinite if a run diverged."""
        ...


class RandomSampler:
    """Independent draws, uniform on each range's scale.

    Each draw of each key has its own random stream, so another key or another number of trials does
    not change the others. If only lists vary, each combination comes once, in random order.
    """

    def __init__(self, space: Mapping[str, Choice], seed: int) -> None:
        self._space = dict(space)
        self._seed = seed
        self._index = 0
        lists = [choice for choice in space.values() if isinstance(choice, tuple)]
        self._combinations: list[Values] | None = None
        if len(lists) == len(space) and math.prod(map(len, lists)) <= COMBINATIONS:
            combinations = [dict(zip(space, values, strict=True)) for values in product(*lists)]
            order = numpy_stream(seed, STREAM).permutation(len(combinations))
            self._combinations = [combinations[place] for place in order]

    def draw(self, count: int) -> list[Values]:
        """Return the values of the next trials; fewer than ``count`` if there are no others."""
        indices = range(self._index, self._index + count)
        self._index += count
        if self._combinations is not None:
            return self._combinations[indices.start : indices.stop]
        return [
            {key: self._value(key, choice, index) for key, choice in self._space.items()}
            for index in indices
        ]

    def learn(self, scores: Sequence[float]) -> None:
        """Do nothing: the draws are independent."""

    def _value(self, key: str, choice: Choice, index: int) -> Any:
        share = float(numpy_stream(self._seed, STREAM, key, index).random())
        if isinstance(choice, tuple):
            return choice[int(share * len(choice))]
        return _rounded(choice.at(share), choice)


class TpeSampler:
    """Optuna's multivariate tree-structured Parzen estimator (Bergstra et al. 2011), by ask/tell.

    The trials of a round are drawn before the estimator gets any of their scores. Trials that are
    not finished count as bad, so that a round spreads. The score of a run that diverged is
    infinite: the estimator uses only the order of scores, so it draws fewer values where runs
    diverge. Raises SetupError without optuna.
    """

    def __init__(self, space: Mapping[str, Choice], seed: int) -> None:
        try:
            import optuna
        except ImportError:
            raise missing_extra("optuna", "search") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = dict(space)
        self._distributions: dict[str, Any] = {
            key: optuna.distributions.CategoricalDistribution(range(len(choice)))
            if isinstance(choice, tuple)
            else optuna.distributions.FloatDistribution(
                choice.low, choice.high, log=choice.scale == "log2"
            )
            for key, choice in space.items()
        }
        self._study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(
                seed=stream_seed(seed, STREAM) % 2**32, n_startup_trials=STARTUP_TRIALS
            )
        )
        self._drawn: list[Any] = []

    def draw(self, count: int) -> list[Values]:
        """Return the values of the next trials; lists may give the same values again."""
        self._drawn = [self._study.ask(self._distributions) for _ in range(count)]
        return [
            {
                key: choice[trial.params[key]]
                if isinstance(choice, tuple)
                else _rounded(trial.params[key], choice)
                for key, choice in self._space.items()
            }
            for trial in self._drawn
        ]

    def learn(self, scores: Sequence[float]) -> None:
        """Learn the scores of the last drawn trials, in order; infinite if a run diverged."""
        for trial, score in zip(self._drawn, scores, strict=True):
            self._study.tell(trial, score)


def _rounded(value: float, choice: Range) -> float:
    """Return a value with four digits: enough to tell runs apart, and easy to read and write."""
    return min(max(float(f"{value:.3e}"), choice.low), choice.high)


def search_proxy(
    recipe: str, overrides: Sequence[str], folder: Path, *, workers: int = 1
) -> list[SweepPoint]:
    """Search on ``recipe`` with ``overrides``, by its section ``study``; each point is one run.

    Runs are folders ``folder/NAME``. Raises UserError for a study that varies nothing and as
    ``run_trials`` does, and SetupError if optuna is needed and not installed.
    """
    loaded = load_recipe(recipe, list(overrides))
    study = study_of(loaded)
    space = search_space(loaded)
    check_ranges(recipe, overrides, space, loaded)
    seed, wanted = loaded.recipe.seed, study.search.trials
    sampler: Sampler = RandomSampler(space, seed)
    at_once = wanted
    if study.search.sampler == "tpe":
        sampler = TpeSampler(space, seed)
        at_once = study.search.round_trials or ROUND_TRIALS
    points: dict[tuple[str, ...], SweepPoint] = {}
    for first in range(0, wanted, at_once):
        drawn = sampler.draw(min(at_once, wanted - first))
        new = {as_overrides(values): values for values in drawn}
        new = {identity: values for identity, values in new.items() if identity not in points}
        trials = [trial_of(values, seed, overrides) for values in new.values()]
        results = run_trials(recipe, trials, folder, score=study.score, workers=workers)
        for (identity, values), result in zip(new.items(), results, strict=True):
            points[identity] = SweepPoint(values, (result,))
        sampler.learn([points[as_overrides(values)].score for values in drawn])
    if len(points) < wanted:
        say(f"{len(points)} different points in {wanted} trials")
    return list(points.values())


def best_point(points: Sequence[SweepPoint]) -> SweepPoint:
    """Return the point of the lowest score; the first one of equal scores.

    Raises RunError if every run diverged.
    """
    best = min(points, key=lambda point: point.score)
    if not math.isfinite(best.score):
        raise RunError(
            f"all {len(points)} trials diverged",
            do="lower the ranges of study.vary and run the same command again",
        )
    return best


def study_of(loaded: LoadedRecipe) -> StudySettings:
    """Return the recipe's study; raises UserError if it varies nothing."""
    study = loaded.recipe.study
    if study is None or not study.vary:
        raise UserError(
            "study.vary: the recipe does not say what to search for",
            do="add study: {vary: {parametrization.learning_rate: {low: 1e-3, high: 1e-1}}}",
        )
    return study


def search_space(loaded: LoadedRecipe) -> dict[str, Choice]:
    """Return the choice for each key of the study: a range, or the values of a list or grid."""
    return {
        key: choice.grid() if isinstance(choice, Range) and choice.points else choice
        for key, choice in study_of(loaded).vary.items()
    }


def check_ranges(
    recipe: str, overrides: Sequence[str], space: Mapping[str, Choice], loaded: LoadedRecipe
) -> None:
    """Raise UserError for a range over a key that does not accept all its numbers."""
    for key, choice in space.items():
        if isinstance(choice, tuple):
            continue
        try:
            load_recipe(recipe, [*overrides, *as_overrides({key: choice.at(0.5)})])
        except UserError as error:
            raise UserError(
                f"study.vary.{key}: the key does not accept a number of this range: {error.what}",
                where=origin_of(loaded.origins, ("study", "vary", key)),
                do="give a list of values instead",
            ) from error
