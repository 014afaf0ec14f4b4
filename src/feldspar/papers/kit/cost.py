"""The planned cost of an experiment: tokens, FLOPs, and time at a stated speed."""

from collections.abc import Sequence
from dataclasses import dataclass

from feldspar.core.accelerators import accelerator_named
from feldspar.plan.flops import UTILISATION_CONVENTION
from feldspar.plan.summary import plan_recipe
from feldspar.plan.time import DEFAULT_UTILISATION, data_sheet_speed
from feldspar.recipe.load import load_recipe
from feldspar.study.trials import Trial

CORE_FLOPS = 60e9
"""FLOPs per second of one thread on small models, as measured on the machine of docs/results."""
STEP_SECONDS = 0.002
"""Seconds that a step of a small model takes beside its matrix products."""
RUN_SECONDS = 1.0
"""Seconds of the start, the validation and the last checkpoint of a small run."""
ACCELERATOR = accelerator_named("H100")


@dataclass(frozen=True)
class RunCost:
    """One run as planned; masks save none of its FLOPs."""

    name: str
    parameters: int
    tokens: int
    steps: int
    flops: float
    accelerator_hours: float
    """The time on one such accelerator, at the planner's usual share of its peak."""

    @property
    def core_seconds(self) -> float:
        """The time on one thread of a processor."""
        return self.flops / CORE_FLOPS + self.steps * STEP_SECONDS + RUN_SECONDS


def run_cost(recipe: str, trial: Trial) -> RunCost:
    """Return the planned cost of a trial of ``recipe``."""
    loaded = load_recipe(recipe, list(trial.overrides)).recipe
    plan = plan_recipe(loaded)
    flops = plan.flops()[UTILISATION_CONVENTION]
    tokens = plan.timeline.length
    speed = data_sheet_speed(ACCELERATOR, 1, DEFAULT_UTILISATION, loaded)
    return RunCost(
        trial.name,
        plan.shapes.parameters,
        tokens,
        plan.timeline.steps,
        flops,
        speed.seconds(tokens, flops) / 3600,
    )


def cost_in_words(costs: Sequence[RunCost]) -> str:
    """Return the cost of runs at a paper's scale, in words."""
    flops = sum(cost.flops for cost in costs)
    hours = sum(cost.accelerator_hours for cost in costs)
    runs = "1 run" if len(costs) == 1 else f"{len(costs)} runs"
    return (
        f"{runs}, {flops:.3g} FLOPs by {UTILISATION_CONVENTION}: about {hours:,.0f} "
        f"{ACCELERATOR.name} hours at {DEFAULT_UTILISATION:.0%} of the data sheet's peak"
    )
