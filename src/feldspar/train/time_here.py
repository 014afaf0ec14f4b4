"""Estimate how long a planned training takes on the machine at hand."""

from dataclasses import dataclass

import torch

from feldspar.core.cgroups import memory_bytes
from feldspar.core.errors import SetupError
from feldspar.core.execution import available_cores
from feldspar.core.progress import progress
from feldspar.core.readable import counted
from feldspar.plan.flops import UTILISATION_CONVENTION, flops_per_token
from feldspar.plan.summary import Plan
from feldspar.plan.time import DEFAULT_UTILISATION
from feldspar.runtime.device import choose_device, choose_precision, peak_flops
from feldspar.train.step_timing import measure_pace

LONGEST_STEP = 1.0
"""Seconds of a step at the usual share of the peak, above which no step is taken to measure."""


@dataclass(frozen=True)
class TimeHere:
    """An estimate of the training's time on this machine, or the reason why it cannot run here."""

    hours: float | None
    """None: it cannot run here."""
    basis: str
    """The speed that the hours follow from, or the reason."""


def time_here(plan: Plan) -> TimeHere:
    """Return the time at the speed of a few steps, taken now.

    On a GPU, and where a step takes long, it is the time at the usual share of this machine's peak,
    right to a factor of about two. Validation, checkpoints and masks that save FLOPs are not
    counted.
    """
    runtime = plan.recipe.runtime
    try:
        device = choose_device(runtime)
    except SetupError as error:
        return TimeHere(None, error.what)
    precision = choose_precision(runtime, device)
    memory, limit = plan.memory(), memory_bytes()
    needed = memory.weights_bytes + memory.gradients_bytes + memory.optimizer_bytes
    if device.type == "cpu" and limit is not None and needed > limit:
        return TimeHere(
            None,
            f"weights, gradients and moments need {needed / 1e9:,.3g} GB, and it has "
            f"{limit / 1e9:,.3g} GB",
        )
    on_gpu = device.type == "cuda"
    number = torch.cuda.device_count() if on_gpu else available_cores()
    usual = DEFAULT_UTILISATION * number * peak_flops(device, precision).per_second
    basis = f"{counted(number, 'GPU' if on_gpu else 'core')} at "
    # A GPU does much in a second: the models that it would time may not fit into its memory.
    timed = None if on_gpu else _timed_flops(plan, usual)
    per_second = timed or usual
    basis += "the speed of a few steps" if timed else f"{DEFAULT_UTILISATION:.0%} of the peak"
    return TimeHere(plan.flops()[UTILISATION_CONVENTION] / per_second / 3600, basis)


def _timed_flops(plan: Plan, usual: float) -> float | None:
    """Return the FLOPs per second of steps of the first phase; None where they take too long.

    A step has as many sequences as the phase's, or as many as take ``LONGEST_STEP`` seconds at
    the ``usual`` speed.
    """
    recipe, context = plan.recipe, plan.recipe.context_lengths[0]
    work = flops_per_token(recipe.model, plan.shapes, context)[UTILISATION_CONVENTION]
    most = int(LONGEST_STEP * usual / (work * context))
    if most == 0:
        return None
    sequences = min(plan.timeline.phases[0].stretches[0].sequences, most)
    with progress("timing a few steps", None, "steps"):
        return work * measure_pace(recipe, 0, sequences).undisturbed
