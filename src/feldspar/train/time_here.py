"""Estimate how long a planned training takes on the machine at hand."""

from dataclasses import dataclass

import torch

from feldspar.core.cgroups import memory_bytes
from feldspar.core.errors import SetupError
from feldspar.core.execution import available_cores
from feldspar.plan.flops import UTILISATION_CONVENTION
from feldspar.plan.summary import Plan
from feldspar.plan.time import DEFAULT_UTILISATION
from feldspar.runtime.device import choose_device, choose_precision, peak_flops


@dataclass(frozen=True)
class TimeHere:
    """An estimate of the training's time on this machine, or the reason why it cannot run here."""

    hours: float | None
    """None: it cannot run here."""
    basis: str
    """The speed that the hours follow from, or the reason."""


def time_here(plan: Plan) -> TimeHere:
    """Return the time at the usual share of this machine's peak, which is measured.

    Validation, checkpoints and masks that save FLOPs are not counted. The result is right to a
    factor of about two: the speed of a finished run (``--measured``) is far better known.
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
    peak = number * peak_flops(device, precision).per_second
    seconds = plan.flops()[UTILISATION_CONVENTION] / (DEFAULT_UTILISATION * peak)
    parts = "GPU" if on_gpu else "core"
    return TimeHere(
        seconds / 3600,
        f"{number} {parts}{'' if number == 1 else 's'} at {DEFAULT_UTILISATION:.0%} of the peak",
    )
