"""The parts of a paper's experiment: its data, its runs in stages, and its findings.

Findings come in two steps: ``measure`` reads figures from the runs, and ``judge`` makes claims,
tables and drawings from the figures alone. A record that holds its figures can therefore be judged
again without the runs.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from feldspar.core.errors import UserError
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.cost import cost_in_words, run_cost
from feldspar.papers.kit.stated import PaperClaims, StatedClaims, read_claims
from feldspar.report.canvas import Figure
from feldspar.report.page import Section, Table
from feldspar.study.trials import TRAIN_LOSS, Trial, TrialResult


class Scale(StrEnum):
    """The size of an experiment."""

    QUICK = "quick"
    """Minutes on two cores: the same way, with fewer and shorter runs."""
    SMALL = "small"
    """About an hour on two cores."""
    OPEN = "open"
    """An open model and real text, about an hour on two cores."""
    PAPER = "paper"
    """The paper's own runs."""


Results = Mapping[str, Sequence[TrialResult]]
"""Finished trials by the name of their stage."""


def values_of(trial: Trial) -> dict[str, Any]:
    """Return the overrides of a trial as dotted keys and plain values."""
    pairs = (item.partition("=") for item in trial.overrides)
    return {key: _plain(text) for key, _, text in pairs}


def by_name(results: Sequence[TrialResult], names: Sequence[str]) -> dict[str, list[TrialResult]]:
    """Return the results of each name, which come seed after seed for each name in turn."""
    seeds = len(results) // len(names)
    return {
        name: list(results[index * seeds : (index + 1) * seeds]) for index, name in enumerate(names)
    }


def by_value(results: Sequence[TrialResult], key: str) -> dict[Any, list[TrialResult]]:
    """Return the results by the value of ``key`` in their trials, each in the order of the runs."""
    found: dict[Any, list[TrialResult]] = {}
    for result in results:
        found.setdefault(values_of(result.trial)[key], []).append(result)
    return found


def start_from_run(folder: Path | str, recipe: str) -> str:
    """Return the override that lets a run start from the last weights of ``folder``, which
    ``recipe`` trains."""
    start = {"type": "run", "path": Path(folder).as_posix(), "recipe": recipe}
    return f"start_from={json.dumps(start)}"


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
    """Keep the trained weights, which the figures need; else only metrics stay."""
    folder: Path | None = None
    """The folder of the runs, where experiments share them; by default one of this experiment."""
    needs: tuple[str, ...] = ()
    """Names of earlier stages whose results ``trials`` reads; they run wherever this one does."""


@dataclass(frozen=True)
class Data:
    """The recipe, with overrides, whose documents and shards an experiment reads."""

    recipe: str
    overrides: tuple[str, ...] = ()


Figures = dict[str, Any]
"""The measured figures as plain values: numbers by seed, under the names of the paper's module."""


@dataclass(frozen=True)
class Findings:
    """The claims, tables and drawings of an experiment."""

    claims: tuple[Claim, ...]
    sections: tuple[Section, ...]
    """Tables and figures of the report."""
    figure: Figure | None
    """The one that says most, written beside the report as SVG; None where the figures that were
    recorded do not hold it."""
    tables: tuple[Table, ...] = ()
    """Tables that the summary shows below the claims."""


@dataclass(frozen=True)
class Paper:
    """A paper whose experiment can be run; its claims lie in ``folder``."""

    name: str
    folder: Path
    data: Data
    """The shards of small scale."""
    stages: Callable[[Scale], tuple[Stage, ...]]
    measure: Callable[[Results, Scale], Figures]
    """Read the figures from finished runs."""
    judge: Callable[[Figures, Scale, StatedClaims], Findings]
    """Judge the claims by figures as JSON holds them; claims that are not run are left out."""
    more_data: tuple[Data, ...] = ()
    """Further shards of small scale, of other corpora."""
    separate: frozenset[str] = frozenset()
    """Stages that may run without the others: ``measure`` then returns their figures alone."""
    measure_without_runs: Callable[[Scale], Figures] | None = None
    """Measure figures that need no run, on ``data``, for a small or quick experiment."""
    open_data: tuple[Data, ...] = ()
    """The shards of an experiment on an open model; empty where there is none."""

    def data_of(self, scale: Scale) -> tuple[Data, ...]:
        """Return the data that are built for an experiment of that scale.

        Raises UserError where the paper has no experiment on an open model.
        """
        if scale is Scale.OPEN and not self.open_data:
            raise UserError(
                f"{self.name} has no experiment on an open model", do="choose --scale small"
            )
        if scale is Scale.PAPER:
            return ()
        return self.open_data if scale is Scale.OPEN else (self.data, *self.more_data)

    @cached_property
    def stated(self) -> PaperClaims:
        """The title, the number on arXiv and the claims, as ``claims.yaml`` states them."""
        return read_claims(self.folder)

    def claims_at(self, scale: Scale) -> StatedClaims:
        """Return the claims, ready to be judged by an experiment of that scale."""
        is_paper = scale is Scale.PAPER
        return StatedClaims(self.stated, is_paper, partial(_cost_of, self.stages))

    def findings(self, figures: Figures, scale: Scale) -> Findings:
        """Judge recorded figures; a quick run gives a verdict only on what is counted."""
        claims = self.claims_at(scale)
        found = self.judge(numbers(figures), scale, claims)
        judged = claims.all_claims(found.claims, quick=scale is Scale.QUICK)
        return replace(found, claims=judged)

    def design(self, scale: Scale) -> int:
        """Return the number of the experiment's design; a quick run has that of the small scale."""
        return self.stated.designs.get("open" if scale is Scale.OPEN else "small", 1)

    def notes(self, scale: Scale) -> tuple[str, ...]:
        """Return the remarks on the experiment of a scale."""
        return self.stated.notes if scale is Scale.SMALL else ()


@cache
def _cost_of(stages: Callable[[Scale], tuple[Stage, ...]], runs: str) -> str:
    """Return the cost of a stage at the paper's scale, or of the one run of a recipe."""
    if "/" in runs:
        return cost_in_words([run_cost(runs, Trial(runs, ()))])
    [stage] = [stage for stage in stages(Scale.PAPER) if stage.name == runs]
    return cost_in_words([run_cost(stage.recipe, trial) for trial in stage.trials({})])


def numbers(value: Any) -> Any:
    """Return plain values with infinity for a number that a list lacks: a run that diverged."""
    if isinstance(value, Mapping):
        return {key: numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [math.inf if item is None else numbers(item) for item in value]
    return value
