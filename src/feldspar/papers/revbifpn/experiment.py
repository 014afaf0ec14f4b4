"""RevBiFPN (2206.14098): how much memory does reversibility save, and what does it cost?

Memory is counted on shapes. Three small sizes learn Fashion-MNIST, each beside a plain network that
has no more multiply-adds; all see as many images. Gradients, curves and times of rebuilt
activations are compared with those of stored ones, and so is what detectors find on canvases.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from feldspar.papers.kit.paper import (
    Data,
    Figures,
    Findings,
    Paper,
    Results,
    Scale,
    Stage,
    by_value,
    values_of,
)
from feldspar.papers.kit.stated import StatedClaims
from feldspar.papers.revbifpn.claims import accuracy_claims, memory_claims, pass_claims
from feldspar.papers.revbifpn.detection import (
    STAGE,
    detection_claim,
    detection_figures,
    detection_stage,
    detection_table,
)
from feldspar.papers.revbifpn.memory import depth_figures, memory_figures
from feldspar.papers.revbifpn.passes import curve_figures, gradient_figures, time_figures
from feldspar.papers.revbifpn.plain import plain_figures
from feldspar.papers.revbifpn.tables import accuracy_table, memory_table, overview_figure
from feldspar.papers.revbifpn.training import RECIPE, recipe_of
from feldspar.recipe.sections.vision import SIZES
from feldspar.report.page import Section
from feldspar.study.sweep import trial_of
from feldspar.study.trials import Trial, TrialResult
from feldspar.vision.data import open_images
from feldspar.vision.network_cost import count_multiply_adds, shapes_of

SCORE, ACCURACY = "validation/loss", "validation/top1"
SIZE, RATE = "choose.size", "parametrization.learning_rate"
SMALL_SIZES = ("T0", "T1", "T2")
SEEDS = {Scale.QUICK: 1, Scale.SMALL: 5, Scale.PAPER: 1}
RATES, TUNED_SIZE, TUNING_SEED = (0.1, 0.2, 0.4), "T1", 100
"""Learning rates that are tried, the size that they are tried on, and a seed that is no other's."""
DEFAULT_RATE = 0.2
QUICK = ("phases.0.length=40 steps", "average_weights.decay=0.8")
"""Overrides of a quick run, whose average forgets the initial values sooner."""
CURVE_STEPS, TURNS, TIMED_PIXELS = 60, 8, 224
QUICK_CURVE_STEPS, QUICK_TURNS, QUICK_PIXELS = 10, 3, 64
CURVE_SEEDS = 3


def stages(scale: Scale) -> tuple[Stage, ...]:
    """Return the rates, tried on one size and seed, all sizes at the best one, and detectors."""
    if scale is Scale.PAPER:
        trials = [trial_of({SIZE: size}, 0) for size in SIZES]
        return (Stage("sizes", "revbifpn/paper", lambda _: trials, SCORE),)
    rates = Stage(
        "rates",
        RECIPE,
        lambda _: [trial_of({SIZE: TUNED_SIZE, RATE: rate}, TUNING_SEED) for rate in RATES],
        SCORE,
    )
    sizes = Stage("sizes", RECIPE, lambda results: size_trials(results, scale), SCORE)
    trained = (sizes,) if scale is Scale.QUICK else (rates, sizes)
    return (*trained, detection_stage(scale))


def size_trials(results: Results, scale: Scale) -> list[Trial]:
    """Return every size with every seed, at the rate of the lowest held-out loss."""
    best = min(results.get("rates", ()), key=lambda run: run.score, default=None)
    rate = DEFAULT_RATE if best is None else values_of(best.trial)[RATE]
    shortened = QUICK if scale is Scale.QUICK else ()
    return [
        trial_of({SIZE: size, RATE: rate}, seed, shortened)
        for size in SMALL_SIZES
        for seed in range(SEEDS[scale])
    ]


def measure(results: Results, scale: Scale) -> Figures:
    """Count memory, read accuracies and what is found, and compare passes.

    The paper's scale has accuracies only; the stage of detection alone has its own figures only.
    """
    if set(results) == {STAGE}:
        return {STAGE: detection_figures(results[STAGE])}
    figures: Figures = {"memory": memory_figures(), "depth": depth_figures()}
    if scale is Scale.PAPER:
        runs = by_value(results["sizes"], SIZE)
        return figures | {
            "sizes": {
                size: {
                    "multiply_adds": figures["memory"][size]["multiply_adds"],
                    "accuracy": accuracies(own),
                }
                for size, own in runs.items()
            }
        }
    quick = scale is Scale.QUICK
    data = open_images(recipe_of())
    seeds = range(SEEDS[scale])
    plain, tried = plain_figures(
        data, seeds, None if quick else TUNING_SEED, QUICK if quick else ()
    )
    tried["RevBiFPN"] = [
        {"rate": values_of(run.trial)[RATE], "loss": run.score} for run in results.get("rates", ())
    ]
    return figures | {
        "sizes": size_figures(results["sizes"]) | plain,
        "rates": tried,
        STAGE: detection_figures(results[STAGE]),
        "gradients": gradient_figures(data, seeds),
        "curves": curve_figures(
            data,
            range(1 if quick else CURVE_SEEDS),
            QUICK_CURVE_STEPS if quick else CURVE_STEPS,
        ),
        "seconds": time_figures(
            QUICK_TURNS if quick else TURNS, QUICK_PIXELS if quick else TIMED_PIXELS
        ),
    }


def size_figures(runs: Sequence[TrialResult]) -> dict[str, Any]:
    """Return multiply-adds, parameters, rate and accuracies of each small size."""
    found: dict[str, Any] = {}
    for size, own in by_value(runs, SIZE).items():
        recipe = recipe_of(f"{SIZE}={size}")
        network, pixels = shapes_of(recipe.model), recipe.phases[-1].resolution
        found[size] = {
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "multiply_adds": count_multiply_adds(network, pixels, pixels).total,
            "rate": values_of(own[0].trial)[RATE],
            "accuracy": accuracies(own),
        }
    return found


def accuracies(runs: Sequence[TrialResult]) -> list[float]:
    """Return the share of held-out images that are right, by seed; 0 for a run that diverged."""
    return [0.0 if run.diverged else run.metrics[ACCURACY] for run in runs]


def judge(figures: Figures, scale: Scale, claims: StatedClaims) -> Findings:
    """Make claims, tables and the drawing."""
    sizes = figures["sizes"]
    judged = [
        *memory_claims(figures["memory"], figures["depth"], claims),
        *accuracy_claims(sizes, claims),
        *(pass_claims(figures, claims) if "seconds" in figures else ()),
        *(() if scale is Scale.PAPER else [detection_claim(figures.get(STAGE), claims)]),
    ]
    figure = overview_figure(figures["memory"], sizes)
    tables = (memory_table(figures["memory"]), accuracy_table(sizes))
    best = {name: fmean(own["accuracy"]) for name, own in sizes.items()}
    sections = (
        Section("Memory of an image in training", (), tables[:1], [figure]),
        Section(
            "Accuracy on Fashion-MNIST",
            [f"Highest: {max(best, key=lambda name: best[name])}."],
            tables[1:],
        ),
    )
    if STAGE in figures:
        found = detection_table(figures[STAGE])
        tables = (*tables, found)
        sections = (*sections, Section("Detection on canvases of digits", (), [found]))
    return Findings(tuple(judged), sections, figure, tables)


PAPER = Paper(
    name="revbifpn",
    folder=Path(__file__).parent,
    data=Data(RECIPE),
    stages=stages,
    measure=measure,
    judge=judge,
    separate=frozenset({STAGE}),
)
