"""Detection with rebuilt and with stored activations: the same detector, seeds and canvases."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from feldspar.core.student_t import half_width
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.gain import Gain
from feldspar.papers.kit.paper import Scale, Stage, by_value
from feldspar.papers.kit.stated import StatedClaims
from feldspar.recipe.load import load_vision_recipe
from feldspar.report.page import Table
from feldspar.study.sweep import trial_of
from feldspar.study.trials import TRAIN_LOSS, TrialResult
from feldspar.vision.plan import plan_vision_recipe

STAGE, RECIPE = "detection", "revbifpn/detection"
MEMORY = "choose.memory"
ARMS = {"store": "stored", "reversible": "rebuilt"}
"""Names of the arms by the memory that they keep."""
SEEDS = {Scale.QUICK: 1, Scale.SMALL: 3}
QUICK = (
    *("phases.0.length=4 steps", "images.train_images=32", "images.validation_images=8"),
    "images.path=data/canvases-quick",
)
"""Overrides of a quick run, which shows the way and finds nothing."""
MEASURES = {name: f"validation/box_{name}" for name in ("AP", "AP50", "AP75", "AR100")}

DetectionFigures = Mapping[str, Mapping[str, Any]]


def detection_stage(scale: Scale) -> Stage:
    """Return the runs of both arms, seed by seed."""
    shortened = QUICK if scale is Scale.QUICK else ()
    trials = [
        trial_of({MEMORY: memory}, seed, shortened)
        for memory in ARMS
        for seed in range(SEEDS[scale])
    ]
    return Stage(STAGE, RECIPE, lambda _: trials)


def detection_figures(runs: Sequence[TrialResult]) -> dict[str, Any]:
    """Return by arm the numbers of COCO and the last losses by seed, and the bytes of a step.

    A run that diverged has found nothing.
    """
    found: dict[str, Any] = {}
    for memory, own in by_value(runs, MEMORY).items():
        plan = plan_vision_recipe(load_vision_recipe(RECIPE, [f"{MEMORY}={memory}"]).recipe)
        step = plan.memory(0)
        found[ARMS[memory]] = {
            "parameters": plan.timeline.parameters,
            "activation_bytes": step.activations,
            "step_bytes": step.activations + step.working,
            "loss": [run.metrics[TRAIN_LOSS] for run in own],
        } | {
            name: [0.0 if run.diverged else run.metrics[key] for run in own]
            for name, key in MEASURES.items()
        }
    return found


def detection_claim(figures: DetectionFigures | None, claims: StatedClaims) -> Claim:
    """Judge whether the arm that rebuilds activations finds as much as the one that stores them.

    A record without these figures gives no verdict.
    """
    name = "detection-with-rebuilt-activations"
    if figures is None:
        return claims.unrecorded(name)
    stored, rebuilt = figures["stored"], figures["rebuilt"]
    gain = Gain.of_shares(rebuilt["AP"], stored["AP"])
    low = fmean(rebuilt["AP50"])
    held = low >= claims.limit(name, "least") and abs(gain.mean) <= claims.limit(name, "margin")
    ratio = stored["activation_bytes"] / rebuilt["activation_bytes"]
    return claims.judged(
        name,
        f"box AP {spread(rebuilt['AP'])} rebuilt, {spread(stored['AP'])} stored, over "
        f"{len(gain.by_seed)} seeds (rebuilt minus stored {spread(gain.by_seed, '+')}); AP50 "
        f"{low:.3f} and {fmean(stored['AP50']):.3f}; neck and heads store their activations in "
        f"both, and a step keeps {ratio:.1f} times less for its backward pass",
        held=held,
    )


def detection_table(figures: DetectionFigures) -> Table:
    """Return a row for each arm."""
    rows = [
        [
            arm,
            *(spread(own[name]) for name in MEASURES),
            f"{fmean(own['loss']):.3f}",
            f"{own['activation_bytes'] / 1e6:.1f}",
            f"{own['step_bytes'] / 1e6:.1f}",
        ]
        for arm, own in figures.items()
    ]
    columns = ["activations", *MEASURES, "training loss", "MB for the backward pass", "MB alive"]
    return Table(columns, rows)


def spread(values: Sequence[float], sign: str = "") -> str:
    """Return the mean, and half of its interval where there are several values."""
    half = half_width(values)
    return f"{fmean(values):{sign}.3f}" + ("" if half is None else f" (+- {half:.3f})")
