"""An experiment in its folder: stages of runs, continued where they stopped, and what they found.

``FOLDER/trials/STAGE/RUN`` holds the run folders. The same command again reads finished runs and
goes on with the others.
"""

import shutil
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feldspar import __version__
from feldspar.core.errors import UserError
from feldspar.core.json_files import json_values, read_json, write_json
from feldspar.core.progress import progress, say
from feldspar.papers.kit.cost import RunCost, run_cost
from feldspar.papers.kit.paper import Data, Figures, Findings, Paper, Results, Scale, Stage
from feldspar.prepare.build import build_missing
from feldspar.prepare.stages import STARTS
from feldspar.recipe.load import LoadedVisionRecipe, data_recipe, load_any_recipe
from feldspar.study.trials import TrialResult, run_trials

RECORD_NAME = "experiment.json"
TRIALS_NAME = "trials"
CHECKPOINTS_NAME = "checkpoints"


@dataclass(frozen=True)
class Again:
    """Stages that run again, and the record whose figures stand for all others."""

    stages: tuple[str, ...]
    record: dict[str, Any]

    def runs(self, paper: Paper, scale: Scale) -> tuple[Stage, ...]:
        """Return the stages to run: the named ones and what they need.

        Raises UserError for a stage that the paper cannot run without the others.
        """
        for name in self.stages:
            if name not in paper.separate:
                raise UserError(
                    f"{paper.name} has no stage {name!r} that can run without the others",
                    allowed=sorted(paper.separate),
                )
        stages = paper.stages(scale)
        needed = {name for stage in stages if stage.name in self.stages for name in stage.needs}
        return tuple(stage for stage in stages if stage.name in {*self.stages, *needed})


@dataclass(frozen=True)
class Outcome:
    """A finished experiment."""

    paper: Paper
    scale: Scale
    figures: Figures
    """The measured figures, as JSON holds them."""
    findings: Findings
    results: Results
    wall_seconds: float
    """The time of all calls of the command together."""
    workers: int
    again: Again | None = None
    """The record from which the figures of the other stages come, if only some were run."""

    @property
    def runs(self) -> list[TrialResult]:
        """Every run."""
        return [result for stage in self.results.values() for result in stage]


def run_experiment(
    paper: Paper, scale: Scale, folder: Path, workers: int, again: Again | None = None
) -> Outcome:
    """Train what is missing of ``paper``'s experiment in ``folder``, and analyse it.

    With ``again`` only its stages run; figures of the others come from its record. Raises UserError
    for a folder of something else, where the data are missing, and for stages that cannot run
    without the others.
    """
    stages = paper.stages(scale) if again is None else again.runs(paper, scale)
    record = open_folder(folder, paper, scale)
    without = () if scale is Scale.OPEN else STARTS  # open models are there before any run
    for each in needed_data(paper, scale, stages):
        loaded = load_any_recipe(each.recipe, list(each.overrides))
        if not isinstance(loaded, LoadedVisionRecipe):  # images are put in their place by hand
            build_missing(data_recipe(loaded), without=without)
    results: dict[str, list[TrialResult]] = {}
    with _counting_time(folder, record):
        for stage in stages:
            trials = stage.trials(results)
            say(f"{stage.name}: {len(trials)} runs of {stage.recipe}")
            place = stage.folder or folder / TRIALS_NAME / stage.name
            results[stage.name] = run_trials(
                stage.recipe, trials, place, score=stage.score, workers=workers
            )
            if not stage.keeps_weights:
                for result in results[stage.name]:
                    shutil.rmtree(result.folder / CHECKPOINTS_NAME, ignore_errors=True)
        figures = json_values(paper.measure(results, scale))
        if paper.measure_without_runs is not None and scale is not Scale.PAPER:
            figures |= paper.measure_without_runs(scale)
        if again is not None:
            figures = again.record["figures"] | figures
        findings = paper.findings(figures, scale)
    return Outcome(paper, scale, figures, findings, results, record["wall_seconds"], workers, again)


def needed_data(paper: Paper, scale: Scale, stages: Sequence[Stage]) -> list[Data]:
    """Return the data of ``stages``: all of the paper's but those of its other stages alone.

    What is measured without runs reads the paper's first data, whatever the stages are.
    """
    left_out = {stage.recipe for stage in paper.stages(scale)} - {stage.recipe for stage in stages}
    if paper.measure_without_runs is not None:
        left_out.discard(paper.data.recipe)
    return [each for each in paper.data_of(scale) if each.recipe not in left_out]


def planned_costs(paper: Paper, scale: Scale) -> dict[str, list[RunCost]]:
    """Return the planned cost of every run by stage; this needs no data."""
    stages = {stage.name: (stage.recipe, stage.trials({})) for stage in paper.stages(scale)}
    total = sum(len(trials) for _, trials in stages.values())
    costs: dict[str, list[RunCost]] = {}
    with progress("planning", total, "runs") as advance:
        for name, (recipe, trials) in stages.items():
            costs[name] = []
            for trial in trials:
                costs[name].append(run_cost(recipe, trial))
                advance(1)
    return costs


def open_folder(folder: Path, paper: Paper, scale: Scale) -> dict[str, Any]:
    """Open the record of a folder, new or continued.

    Raises UserError for a folder of something else.
    """
    identity = {"paper": paper.name, "scale": scale.value, "version": __version__}
    path = folder / RECORD_NAME
    if path.is_file():
        record = read_json(path)
        if any(record.get(key) != value for key, value in identity.items()):
            raise UserError(
                f"{folder} holds another experiment",
                found=", ".join(f"{key} {record.get(key)}" for key in identity),
                do="choose another --out",
            )
        return record
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{folder} exists and holds no experiment", do="choose another --out, or empty it"
        )
    record = identity | {"wall_seconds": 0.0}
    write_json(path, record)
    return record


@contextmanager
def _counting_time(folder: Path, record: dict[str, Any]) -> Generator[None]:
    """Add the time of the block to the record, also when it is interrupted."""
    began = time.perf_counter()
    try:
        yield
    finally:
        record["wall_seconds"] += time.perf_counter() - began
        write_json(folder / RECORD_NAME, record)
