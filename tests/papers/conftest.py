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
from tests.train.conftest import Command

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


TRUNK_SOURCES = {
    "django-docs": "jinja2",
    "django-code": "pydantic",
    "py-stdlib": "numpy",
    "shakespeare": "rich",
    "package-docs": "typer",
    "package-code": "pygments",
}
"""An installed package for each source of the trunk."""


def build_trunk_offline(feldspar: Command, folder: Path) -> None:
    """Build the trunk's shards in ``folder`` of installed packages, as CI has no other text."""
    sources = {
        name: {"reader": {"type": "installed", "what": "packages", "packages": [package]}}
        for name, package in TRUNK_SOURCES.items()
    }
    text = [
        f"corpus.sources={json.dumps(sources)}",
        "corpus.split={validation: 0.1, test: 0.05}",
        "corpus.path=data/trunk/offline",
    ]
    for command in (["corpus", "build"], ["tokens", "build"]):
        made = feldspar(*command, "trunk", *text, cwd=folder, timeout=600)
        assert made.returncode == 0, made.stderr
