"""Finished trials made up from a rule, as an experiment would have them."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from feldspar.core.json_files import json_values
from feldspar.papers.kit.paper import Findings, Paper, Results, Scale, numbers, values_of
from feldspar.papers.kit.stated import StatedClaims
from feldspar.study.trials import Trial, TrialResult
from tests.study.conftest import feldspar

__all__ = ["feldspar", "finished", "judged_by", "stated"]


def finished(trials: Iterable[Trial], loss: Callable[[dict[str, Any]], float]) -> list[TrialResult]:
    """A result of each trial, whose score is the rule's loss of the trial's values."""
    return [
        TrialResult(trial, Path("trials") / trial.name, loss(values_of(trial)), {}, 1000, 1.0)
        for trial in trials
    ]


def judged_by(paper: Paper, results: Results, scale: Scale) -> Findings:
    """Judge made-up results by the paper's rules, before a quick run's verdicts are dropped."""
    figures = numbers(json.loads(json.dumps(json_values(paper.measure(results, scale)))))
    claims = paper.claims_at(scale)
    found = paper.judge(figures, scale, claims)
    return Findings(claims.all_claims(found.claims, quick=False), found.sections, found.figure)


def stated(paper: Paper, *, at_paper_scale: bool = False) -> StatedClaims:
    """Return the claims of a paper, whose costs name the runs only."""
    return StatedClaims(paper.stated, at_paper_scale, lambda runs: f"cost of {runs}")
