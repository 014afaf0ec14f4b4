"""The planned cost of an experiment: tokens or images, FLOPs, and time at a stated speed."""

from collections.abc import Sequence
from dataclasses import dataclass

from feldspar.core.accelerators import accelerator_named
from feldspar.core.readable import counted
from feldspar.plan.flops import UTILISATION_CONVENTION
from feldspar.plan.summary import plan_recipe
from feldspar.plan.time import DEFAULT_UTILISATION, data_sheet_speed
from feldspar.recipe.load import LoadedRecipe, LoadedVisionRecipe, language_recipe, load_any_recipe
from feldspar.study.trials import Trial
from feldspar.vision.plan import plan_vision_recipe

CORE_FLOPS = 60e9
"""FLOPs per second of one thread on small models, as measured on the machine of docs/results."""
STEP_SECONDS = 0.002
"""Seconds that a step of a small model takes beside its matrix products."""
RUN_SECONDS = 1.0
"""Seconds of the start, the validation and the last checkpoint of a small run."""
PYRAMID_FLOPS = 7e9
"""FLOPs per second of one thread in the convolutions of small pyramids, on the same machine."""
IMAGE_SECONDS = 0.0005
"""Seconds that an image takes beside its convolutions."""
IMAGE_RUN_SECONDS = 5.0
"""Seconds of the start and the validation of a small run on images."""
ACCELERATOR = accelerator_named("H100")
MULTIPLY_ADDS = "multiply-adds x 6"
"""The convention of FLOPs on images: a multiply-add is two, and a backward pass costs twice as much
as a forward pass."""


@dataclass(frozen=True)
class RunCost:
    """One run as planned; masks save none of its FLOPs."""

    name: str
    parameters: int
    tokens: int
    """Training tokens; 0 for a run on images."""
    steps: int
    flops: float
    accelerator_hours: float
    """The time on one such accelerator, at the planner's usual share of its peak."""
    images: int = 0
    """Training images; 0 for a run on text."""

    @property
    def core_seconds(self) -> float:
        """The time on one thread of a processor."""
        if self.images:
            return self.flops / PYRAMID_FLOPS + self.images * IMAGE_SECONDS + IMAGE_RUN_SECONDS
        return self.flops / CORE_FLOPS + self.steps * STEP_SECONDS + RUN_SECONDS

    @property
    def convention(self) -> str:
        """The convention by which the FLOPs are counted."""
        return MULTIPLY_ADDS if self.images else UTILISATION_CONVENTION


def run_cost(recipe: str, trial: Trial) -> RunCost:
    """Return the planned cost of a trial of ``recipe``."""
    loaded = load_any_recipe(recipe, list(trial.overrides))
    if isinstance(loaded, LoadedVisionRecipe):
        return _cost_on_images(loaded, trial.name)
    return _cost_on_text(language_recipe(loaded), trial.name)


def _cost_on_text(loaded: LoadedRecipe, name: str) -> RunCost:
    plan = plan_recipe(loaded.recipe)
    flops = plan.flops()[UTILISATION_CONVENTION]
    tokens = plan.timeline.length
    speed = data_sheet_speed(ACCELERATOR, 1, DEFAULT_UTILISATION, loaded.recipe)
    hours = speed.seconds(tokens, flops) / 3600
    return RunCost(name, plan.shapes.parameters, tokens, plan.timeline.steps, flops, hours)


def _cost_on_images(loaded: LoadedVisionRecipe, name: str) -> RunCost:
    plan = plan_vision_recipe(loaded.recipe)
    flops, timeline = plan.flops(), plan.timeline
    hours = flops / (DEFAULT_UTILISATION * ACCELERATOR.bfloat16_flops) / 3600
    return RunCost(
        name, timeline.parameters, 0, timeline.steps, flops, hours, images=timeline.length
    )


def cost_in_words(costs: Sequence[RunCost]) -> str:
    """Return the cost of runs at a paper's scale, in words."""
    flops = sum(cost.flops for cost in costs)
    hours = sum(cost.accelerator_hours for cost in costs)
    runs = counted(len(costs), "run")
    return (
        f"{runs}, {flops:.3g} FLOPs by {costs[0].convention}: about {hours:,.0f} "
        f"{ACCELERATOR.name} hours at {DEFAULT_UTILISATION:.0%} of the data sheet's peak"
    )
