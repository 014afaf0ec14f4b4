"""Finished trials made up from a rule, as an experiment would have them."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from feldspar.papers.kit.paper import Findings, Paper, Results, Scale, numbers, plain, values_of
from feldspar.study.trials import Trial, TrialResult
from tests.study.conftest import feldspar

__all__ = ["feldspar", "finished", "judged_by"]


def finished(trials: Iterable[Trial], loss: Callable[[dict[str, Any]], float]) -> list[TrialResult]:
    """A result of each trial, whose score is the rule's loss of the trial's values."""
    return [
        TrialResult(trial, Path("trials") / trial.name, loss(values_of(trial)), {}, 1000, 1.0)
        for trial in trials
    ]


def judged_by(paper: Paper, results: Results, scale: Scale) -> Findings:
    """Judge made-up results by the paper's rules, before a quick run's verdicts are dropped."""
    return paper.judge(numbers(json.loads(json.dumps(plain(paper.measure(results, scale))))), scale)
