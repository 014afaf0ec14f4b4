"""Learning rates that each arm of an experiment tunes on a seed that is not compared."""

from collections.abc import Mapping, Sequence
from typing import Any

from feldspar.papers.kit.paper import by_value, values_of
from feldspar.study.trials import TrialResult

RATE = "parametrization.learning_rate"


def scores_by_rate(runs: Sequence[TrialResult], key: str) -> dict[Any, dict[float, float]]:
    """Return the score of each run by the value of ``key`` in its trial, and by its rate."""
    return {
        value: {values_of(run.trial)[RATE]: run.score for run in own}
        for value, own in by_value(runs, key).items()
    }


def best_rate(scores: Mapping[float, float]) -> float:
    """Return the rate of the lowest score."""
    return min(scores, key=lambda rate: scores[rate])
