"""The quickstart's speed record: which changes of its recipe give fewer bits per byte in a time.

Each attempt is one change of another one (``contenders/record_attempts.py``), and trains for the
same processor time of one thread. Its tokens are the time multiplied by its speed. The speeds of
all attempts are measured by steps in turns, so that a change of the processor's speed meets all of
them. A steered batch has the speed of its first step. Validation and the start of a run cost every
attempt about the same and are not counted.

There are two stages. The design of both was fixed before their runs.

* Screening: SCREENING seconds, seeds 0 to 2. The score is bits per byte of validation documents:
  the first 4,096 characters of up to ten of each source, the same for all. An attempt is better or
  worse where the 95 % interval of its gain, paired by seed, lies on one side of zero, and better
  only with a mean of more than 0.5 %.
* Record: RECORD seconds: the recipe before any attempt needed them for its 3.4 M tokens. Its
  seeds are in no screening. It trains the attempts that may serve a longer run best. The score is
  what ``feldspar quickstart`` prints: bits per byte of all test documents.

    python benchmarks/quickstart_record.py --results docs/results/quickstart-record

Finished runs are read again, so the same command goes on after an interruption. ``--only`` names
the attempts of a call, so that several calls can share the work; without a name after it, the call
only writes the page.
"""

import argparse
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from contenders.record_attempts import (
    ATTEMPTS,
    RECIPE,
    overrides,
    part_overrides,
    phases_of,
    sequence_tokens,
)
from contenders.record_page import page
from feldspar.core.files import write_atomically
from feldspar.core.json_files import read_json, write_json
from feldspar.core.machine import processor
from feldspar.corpus.store import documents
from feldspar.evaluate.loss.documents import text_losses
from feldspar.evaluate.loss.text_loss import total_loss
from feldspar.papers.kit.step_time import step_seconds_in_turn
from feldspar.prepare.build import build_missing
from feldspar.recipe.load import LoadedRecipe, load_recipe
from feldspar.release.quickstart import figures_record
from feldspar.study.trials import Trial, run_trials
from feldspar.train.evaluation import held_out_figures
from feldspar.train.opened_model import Model, open_model

EXCERPTS, EXCERPT_CHARACTERS = 10, 4096
TURNS = 8


@dataclass(frozen=True)
class Stage:
    """Attempts that train for the same time, and how their runs are scored."""

    name: str
    seconds: float
    seeds: tuple[int, ...]
    attempts: tuple[str, ...]


SCREENING = Stage(
    "screening", 45, (0, 1, 2), tuple(name for name in ATTEMPTS if not name.startswith("small-"))
)
RECORD = Stage(
    "record",
    475,
    (10, 11, 12),
    (
        "start",
        "muon",
        "rate-32e-3",
        "shape-96",
        "small-8e-3",
        "small-256-512",
        "small-10e-3",
        "small-4e-3",
        "small-8e-3-256-512",
    ),
)
STAGES = {stage.name: stage for stage in (SCREENING, RECORD)}


def main() -> None:
    """Measure speeds, train what is missing, print the page, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart-record"))
    parser.add_argument("--stage", choices=STAGES, help="default: both")
    parser.add_argument("--only", nargs="*", help="attempts to train; default: all of a stage")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: those of the stage")
    parser.add_argument("--share", type=float, default=1.0, help="share of the time, for a trial")
    parser.add_argument("--results", type=Path, help="the page without its ending")
    options = parser.parse_args()
    stages = [STAGES[options.stage]] if options.stage else [*STAGES.values()]
    names = dict.fromkeys(name for stage in stages for name in ("start", *stage.attempts))
    for name in names:
        build_missing(recipe_of(name))
    speeds = measured_speeds(options.out / "speeds.json", list(names))
    for stage in stages:
        for name in stage.attempts:
            if options.only is None or name in options.only:
                for seed in stage.seeds:
                    if options.seeds is None or seed in options.seeds:
                        run(options.out, stage, name, seed, speeds[name], options.share)
    record = collected(options.out, speeds)
    print(page(record))
    if options.results is not None:
        write_json(options.results.with_suffix(".json"), record)
        write_atomically(options.results.with_suffix(".md"), page(record))


def recipe_of(name: str) -> LoadedRecipe:
    """Return the recipe of an attempt, for its data."""
    return load_recipe(RECIPE, list(overrides(name, 0, [10**6] * len(phases_of(name)))))


def measured_speeds(path: Path, names: Sequence[str]) -> dict[str, list[float]]:
    """Return the tokens a second of each phase of all attempts; measure those that are missing.

    Later measurements are scaled by the speed of the start, which is measured with them.
    """
    known: dict[str, list[float]] = read_json(path) if path.is_file() else {}
    missing = [name for name in names if name not in known]
    if missing:
        timed = {
            f"{name}/{index}": own
            for name in dict.fromkeys(("start", *missing))
            for index, own in enumerate(part_overrides(name))
        }
        seconds = step_seconds_in_turn(RECIPE, timed, TURNS)
        found = {
            name: [
                tokens / median(seconds[f"{name}/{index}"])
                for index, tokens in enumerate(sequence_tokens(name))
            ]
            for name in dict.fromkeys(("start", *missing))
        }
        scale = known["start"][0] / found["start"][0] if known else 1.0
        known |= {name: [scale * speed for speed in found[name]] for name in missing}
        write_json(path, known)
    return known


def lengths(name: str, seconds: float, speeds: Sequence[float]) -> list[int]:
    """Return the tokens of each phase of an attempt in a time, to three digits."""
    exact = [
        share * seconds * speed for (share, _), speed in zip(phases_of(name), speeds, strict=True)
    ]
    return [round(tokens, 2 - math.floor(math.log10(tokens))) for tokens in map(int, exact)]


def run(
    out: Path, stage: Stage, name: str, seed: int, speeds: Sequence[float], share: float
) -> None:
    """Train a run of an attempt and write its score into its folder."""
    settings = overrides(name, seed, lengths(name, share * stage.seconds, speeds))
    folder = out / stage.name / name
    [result] = run_trials(RECIPE, [Trial(str(seed), settings)], folder)
    path = result.folder / "score.json"
    if path.is_file():
        return
    if result.diverged:
        score: dict[str, Any] = {"bits_per_byte": None}
    elif stage is RECORD:
        score = test_figures(open_model(result.folder), with_baselines=seed == stage.seeds[0])
    else:
        corpus = recipe_of(name).recipe.corpus
        assert corpus is not None, "the quickstart names its documents"
        score = {"bits_per_byte": excerpt_loss(open_model(result.folder), corpus.path)}
    write_json(path, score | {"tokens": result.tokens})


def excerpt_loss(model: Model, folder: Path) -> float:
    """Return the bits per byte of beginnings of validation documents of each source."""
    sources = sorted(path.name for path in (folder / "validation").iterdir())
    texts = [
        document.text[:EXCERPT_CHARACTERS]
        for source in sources
        for document in islice(documents(folder, "validation", source), EXCERPTS)
    ]
    return total_loss(text_losses(model.text_model, texts)).bits_per_byte


def test_figures(model: Model, with_baselines: bool) -> dict[str, Any]:
    """Return the figures that the quickstart prints of the test documents."""
    record = figures_record(held_out_figures(model, baselines=with_baselines))
    found = {"bits_per_byte": record["bits_per_byte"]["overall"]}
    return found | ({"baselines": record["baselines"]} if with_baselines else {})


def collected(out: Path, speeds: dict[str, list[float]]) -> dict[str, Any]:
    """Return the figures of all finished runs, which the page is computed from."""
    stages = {}
    for stage in STAGES.values():
        rows = {}
        for name in stage.attempts:
            paths = [out / stage.name / name / str(seed) / "score.json" for seed in stage.seeds]
            scores = {
                str(seed): read_json(path)
                for seed, path in zip(stage.seeds, paths, strict=True)
                if path.is_file()
            }
            if scores:
                attempt = ATTEMPTS[name]
                base = attempt.base if stage is SCREENING or attempt.base is None else "start"
                rows[name] = {
                    "change": attempt.change,
                    "base": base,
                    "tokens_per_second": speeds[name],
                    "runs": scores,
                }
        stages[stage.name] = asdict(stage) | {"attempts": rows}
    machine = f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return {"machine": machine, "date": date.today().isoformat(), "stages": stages}


if __name__ == "__main__":
    main()
