"""Define what a paper's module provides: its data, its experiment in stages, and its findings.

Findings come in two steps: ``measure`` reads figures from the runs, and ``judge`` makes claims,
tables and drawings from the figures alone. A record that holds its figures can therefore be judged
again without the runs.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from feldspar.papers.kit.claims import Claim, without_verdict
from feldspar.report.figures import Figure
from feldspar.report.page import Section
from feldspar.study.trials import TRAIN_LOSS, Trial, TrialResult


class Scale(StrEnum):
    """How large an experiment is."""

    QUICK = "quick"
    """Minutes on two cores: the same way, with fewer and shorter runs."""
    SMALL = "small"
    """Under an hour on two cores."""
    PAPER = "paper"
    """The paper's own runs."""


Results = Mapping[str, Sequence[TrialResult]]
"""Finished trials by the name of their stage."""


def values_of(trial: Trial) -> dict[str, Any]:
    """The overrides of a trial as dotted keys and plain values."""
    pairs = (item.partition("=") for item in trial.overrides)
    return {key: _plain(text) for key, _, text in pairs}


def by_name(results: Sequence[TrialResult], names: Sequence[str]) -> dict[str, list[TrialResult]]:
    """Results that come seed after seed for each name in turn."""
    seeds = len(results) // len(names)
    return {
        name: list(results[index * seeds : (index + 1) * seeds]) for index, name in enumerate(names)
    }


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@dataclass(frozen=True)
class Stage:
    """Runs of one recipe that can go side by side.

    ``trials`` is given the results of the stages before it; for a dry run there are none, and
    whatever it would read from them must not change what the runs cost.
    """

    name: str
    recipe: str
    trials: Callable[[Results], list[Trial]]
    score: str = TRAIN_LOSS
    keeps_weights: bool = False
    """Whether the findings need the trained weights; else only metrics stay."""


@dataclass(frozen=True)
class Data:
    """The recipe, with overrides, whose documents and shards an experiment reads."""

    recipe: str
    overrides: tuple[str, ...] = ()


Figures = dict[str, Any]
"""The measured figures as plain values: numbers by seed, under the names of the paper's module."""


@dataclass(frozen=True)
class Findings:
    """What an experiment came to."""

    claims: tuple[Claim, ...]
    sections: tuple[Section, ...]
    """Tables and figures of the report."""
    figure: Figure | None
    """The one that says most, written beside the report as SVG; None where the figures that were
    recorded do not hold it."""
    notes: tuple[str, ...] = ()
    """Remarks on how the experiment came about, which a reader of the claims has to know."""


@dataclass(frozen=True)
class Paper:
    """A paper that can be reproduced."""

    name: str
    title: str
    number: str
    """Its number on arXiv."""
    data: Data
    """Where small scale finds its tokens."""
    stages: Callable[[Scale], tuple[Stage, ...]]
    measure: Callable[[Results, Scale], Figures]
    """Read the figures from finished runs."""
    judge: Callable[[Figures, Scale], Findings]
    """Judge the claims by figures as JSON holds them; claims whose figures lack are left out."""
    more_data: tuple[Data, ...] = ()
    """Further shards of small scale, of other corpora."""

    def findings(self, figures: Figures, scale: Scale) -> Findings:
        """Judge recorded figures; a quick run gives a verdict only on what is counted."""
        found = self.judge(numbers(figures), scale)
        if scale is not Scale.QUICK:
            return found
        return replace(found, claims=tuple(map(without_verdict, found.claims)))


def plain(value: Any) -> Any:
    """Return plain values as JSON gives them back, with None for numbers that it lacks."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def numbers(value: Any) -> Any:
    """Return plain values with infinity for a number that a list lacks: a run that diverged."""
    if isinstance(value, Mapping):
        return {key: numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [math.inf if item is None else numbers(item) for item in value]
    return value
