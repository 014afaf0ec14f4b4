"""SP and muP over widths 32 to 256 at equal tokens, five seeds each.

SP's rate is tuned at every width, muP's at the smallest alone, with a seed that is not among the
five. The losses become two families, which the law of SP compares.
"""

import math
from functools import cache

from feldspar.papers.cerebras_gpt.family import (
    CONVENTION,
    PARAMETRIZATION,
    RATE,
    SCORE,
    Member,
)
from feldspar.papers.kit.paper import Results, Scale, Stage, values_of
from feldspar.papers.kit.text_baselines import text_baselines
from feldspar.plan.summary import Plan, plan_recipe
from feldspar.recipe.load import load_recipe
from feldspar.study.sweep import trial_of
from feldspar.study.trials import Trial

RECIPE = "cerebras-gpt/widths"
WIDTH = "choose.width"
RATES_STAGE, SEEDS_STAGE = "width-rates", "widths"
SP, MUP = "sp", "mup"
SEEDS, TUNING_SEED = 5, 100
BASE_RATE, BASE_WIDTH = 2.0**-6, 32
OCTAVES = (-1, 0, 1)
"""Rates that are tried at each width, around the base rate over the width's multiple of 32."""
QUICK = ("phases.0.length=20 steps",)
QUICK_WIDTHS = ("w32", "w48", "w64", "w96")


@cache
def widths(scale: Scale) -> tuple[str, ...]:
    """Return the names of the widths, smallest first."""
    if scale is Scale.QUICK:
        return QUICK_WIDTHS
    return tuple(load_recipe(RECIPE).recipe.choices["width"])


def width_stages(scale: Scale) -> tuple[Stage, ...]:
    """Return the runs that tune rates, and then those of the seeds."""
    return (
        Stage(RATES_STAGE, RECIPE, lambda _: rate_trials(scale), SCORE),
        Stage(
            SEEDS_STAGE,
            RECIPE,
            lambda results: seed_trials(results, scale),
            SCORE,
            needs=(RATES_STAGE,),
        ),
    )


def rate_trials(scale: Scale) -> list[Trial]:
    """Return SP at every width and muP at the smallest, each at three rates; wide ones first."""
    smallest = widths(scale)[0]
    return [
        width_trial(name, width, rate, TUNING_SEED, scale)
        for width in reversed(widths(scale))
        for name in ((SP, MUP) if width == smallest else (SP,))
        for rate in (rates(width)[1:2] if scale is Scale.QUICK else rates(width))
    ]


def seed_trials(results: Results, scale: Scale) -> list[Trial]:
    """Return both parametrizations at every width and the chosen rates, wide ones first."""
    return [
        width_trial(name, width, chosen_rate(results, name, width, scale), seed, scale)
        for width in reversed(widths(scale))
        for name in (SP, MUP)
        for seed in range(1 if scale is Scale.QUICK else SEEDS)
    ]


def width_trial(name: str, width: str, rate: float, seed: int, scale: Scale) -> Trial:
    """Return one run."""
    values = {PARAMETRIZATION: name, WIDTH: width, RATE: rate}
    return trial_of(values, seed, QUICK if scale is Scale.QUICK else ())


def rates(width: str) -> list[float]:
    """Return the rates that are tried under SP: the wider, the lower, in octaves."""
    fall = round(math.log2(plan_of(width).recipe.model.d_model / BASE_WIDTH))
    return [BASE_RATE * 2.0 ** (octave - fall) for octave in OCTAVES]


def chosen_rate(results: Results, name: str, width: str, scale: Scale) -> float:
    """Return SP's best rate at this width, muP's at the smallest; without runs, one of the grid."""
    tuned_at = widths(scale)[0] if name == MUP else width
    if RATES_STAGE not in results:
        return rates(tuned_at)[0]
    runs = [(values_of(run.trial), run.score) for run in results[RATES_STAGE]]
    own = [
        (score, values[RATE])
        for values, score in runs
        if (values[PARAMETRIZATION], values[WIDTH]) == (name, tuned_at)
    ]
    return min(own)[1]


def members_of(results: Results, scale: Scale) -> list[Member]:
    """Return every width under both parametrizations, with the loss of each seed."""
    runs = [(values_of(run.trial), run.score) for run in results[SEEDS_STAGE]]
    found = []
    for width in widths(scale):
        plan = plan_of(width)
        flops = plan.flops()[CONVENTION]
        for name in (SP, MUP):
            own = [
                (values[RATE], score)
                for values, score in runs
                if (values[PARAMETRIZATION], values[WIDTH]) == (name, width)
            ]
            losses = tuple(score for _, score in own)
            found.append(Member(name, width, plan.shapes.parameters, flops, own[0][0], losses))
    return found


def width_baselines(scale: Scale) -> dict[str, float]:
    """Return bits per byte without a model, by the tokens that every width reads."""
    return text_baselines(RECIPE, QUICK if scale is Scale.QUICK else ())


@cache
def plan_of(width: str) -> Plan:
    """Return the plan of a width."""
    return plan_recipe(load_recipe(RECIPE, [f"{WIDTH}={width}"]).recipe)
