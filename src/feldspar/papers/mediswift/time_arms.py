"""The arms that are pre-trained for the same time, and their runs."""

from collections.abc import Mapping, Sequence

from feldspar.papers.kit.paper import Scale, by_value
from feldspar.study.sweep import as_overrides, trial_of
from feldspar.study.trials import Trial, TrialResult

TIME, ARM = "mediswift/time", "choose.arm"
DENSE, HALF, SPARSE, SMALL_DENSE = "dense", "50%", "75%", "small dense"
ARMS = {DENSE: "dense", HALF: "50%", SPARSE: "75%", SMALL_DENSE: "small-dense"}
"""The arms by the choices of the recipe."""
TIMED = ARMS | {"75%, unstructured": "75%-unstructured"}
"""The arms whose steps are timed; unstructured masks are not trained."""
SEEDS = {Scale.QUICK: 1, Scale.SMALL: 3}
QUICK = ("phases.0.length=8 steps", "evaluation.every=50% of phase")
SPARSE_PRODUCTS = "runtime.masked_products=sparse"
"""A choice by measurement could differ between seeds where another run disturbs it."""


def time_trials(scale: Scale) -> list[Trial]:
    """Return all arms of each seed in turn, so that a slow minute of the machine meets all arms."""
    fixed = (SPARSE_PRODUCTS, *(QUICK if scale is Scale.QUICK else ()))
    return [
        trial_of({ARM: choice}, seed, fixed)
        for seed in range(SEEDS[scale])
        for choice in ARMS.values()
    ]


def overrides_of(arm: str) -> tuple[str, ...]:
    """Return the overrides of an arm whose steps are timed."""
    return (SPARSE_PRODUCTS, *as_overrides({ARM: TIMED[arm]}))


def runs_by_arm(
    runs: Sequence[TrialResult], choices: Mapping[str, str]
) -> dict[str, list[TrialResult]]:
    """Return the runs of each arm by seed; ``choices`` holds the arms by the recipe's choices."""
    found = by_value(runs, ARM)
    return {name: found[choice] for name, choice in choices.items()}
