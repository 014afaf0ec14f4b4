"""Training time from a throughput: given, from a data sheet, or from a past run.

Rates and work are counted by ``6P+attention``, the convention of the trainer's own utilisation.
FLOPs that sparse products skip count neither in a past run's rate nor in the planned work: the
planned run is taken to skip the same share of the FLOPs of masked entries. For any other speed it
skips none. Validation and checkpoints are not included.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from feldspar.core.accelerators import Accelerator
from feldspar.core.errors import UserError
from feldspar.core.rows import ModelShapes
from feldspar.plan.flops import (
    UTILISATION_CONVENTION,
    flops_per_token,
    masked_flops_per_token,
)
from feldspar.plan.timeline import PhasePlan, Timeline
from feldspar.plan.trained import trained_with_lora
from feldspar.recipe.root import Recipe
from feldspar.sparsity.density import kept_counts

HOUR = 3600.0
SKIPPED_KEY = "skipped_flops_per_token"
"""The key in a step's record for the FLOPs of a token that sparse products skipped."""
DEFAULT_UTILISATION = 0.4
"""Share of the peak that training reaches, if no better value is known."""


@dataclass(frozen=True)
class Speed:
    """The throughput of all devices together, in tokens or in FLOPs by ``6P+attention``
    per second.
    """

    source: str
    tokens_per_second: float | None = None
    flops_per_second: float | None = None
    skipped_share: float = 0.0
    """Share of the FLOPs of masked entries that sparse products skip."""

    def seconds(self, tokens: int, flops: float) -> float:
        """Return the seconds for ``tokens`` tokens that cost ``flops`` FLOPs."""
        if self.tokens_per_second is not None:
            return tokens / self.tokens_per_second
        assert self.flops_per_second is not None, "one of the two is given"
        return flops / self.flops_per_second


def stated_speed(tokens_per_second: float) -> Speed:
    """Return a given throughput in tokens per second. Raises UserError unless it is above 0."""
    if not (tokens_per_second > 0 and math.isfinite(tokens_per_second)):
        raise UserError("--tokens-per-second: must be above 0", found=tokens_per_second)
    return Speed("stated", tokens_per_second=tokens_per_second)


def data_sheet_speed(
    accelerator: Accelerator, devices: int, utilisation: float, recipe: Recipe
) -> Speed:
    """Return the throughput at a share of the peak of ``devices`` accelerators.

    Raises UserError for a share outside (0, 1], and for a recipe in another precision than the
    data sheet's.
    """
    if not 0 < utilisation <= 1:
        percent = f"; write {utilisation / 100:g} for {utilisation:g} %"
        raise UserError(
            "--utilisation: must be a share of the peak, above 0 and at most 1"
            + (percent if 1 < utilisation <= 100 else ""),
            found=utilisation,
        )
    if recipe.runtime.precision == "float32":
        raise UserError(
            f"runtime.precision: float32, but the peak of an {accelerator.name} is for bfloat16",
            do="set runtime.precision=bfloat16, or give --tokens-per-second",
        )
    source = f"{devices} x {accelerator.name} at {utilisation:.0%} of the data sheet's peak"
    return Speed(source, flops_per_second=accelerator.bfloat16_flops * devices * utilisation)


def measured_speed(
    records: Iterable[Mapping[str, Any]], recipe: Recipe, shapes: ModelShapes
) -> Speed:
    """Return the median FLOPs per second of a past run's steps, from its records.

    FLOPs rather than tokens are used, so that runs of another size or context can be compared.
    Raises UserError for a record of a phase that the recipe lacks.
    """
    names = [phase.name for phase in recipe.phases]
    indices = range(len(names))
    work = [_flops_per_token(recipe, shapes, index) for index in indices]
    masked = [_masked_flops_per_token(recipe, shapes, index) for index in indices]
    rates, shares = [], []
    for record in records:
        if record["phase"] not in names:
            raise UserError(
                f"--measured: the run's recipe has no phase {record['phase']!r}", allowed=names
            )
        index = names.index(record["phase"])
        skipped = record.get(SKIPPED_KEY, 0.0)
        rates.append(record["tokens_per_second"] * (work[index] - skipped))
        if masked[index]:
            shares.append(skipped / masked[index])
    source = f"measured over {len(rates)} steps"
    return Speed(
        source,
        flops_per_second=median(rates),
        skipped_share=median(shares) if shares else 0.0,
    )


def time_record(
    recipe: Recipe, shapes: ModelShapes, timeline: Timeline, speed: Speed, devices: int
) -> dict[str, Any]:
    """Return hours of each phase and of the run, and device-hours, as plain values."""
    share = speed.skipped_share
    work = [_phase_flops(recipe, shapes, phase, share) for phase in timeline.phases]
    hours = [
        speed.seconds(phase.length, flops) / HOUR
        for phase, flops in zip(timeline.phases, work, strict=True)
    ]
    total, flops = sum(hours), sum(work)
    return {
        "hours": total,
        "device_hours": total * devices,
        "tokens_per_second": timeline.length / (total * HOUR),
        "flops_per_second": flops / (total * HOUR),
        "convention": UTILISATION_CONVENTION,
        "source": speed.source,
        "phases": [
            {"name": phase.name, "hours": value}
            for phase, value in zip(timeline.phases, hours, strict=True)
        ],
    }


def _phase_flops(
    recipe: Recipe, shapes: ModelShapes, phase: PhasePlan, skipped_share: float
) -> float:
    """Return the FLOPs that a phase executes."""
    flops = _flops_per_token(recipe, shapes, phase.index)
    if skipped_share:
        flops -= skipped_share * _masked_flops_per_token(recipe, shapes, phase.index)
    return flops * phase.length


def _flops_per_token(recipe: Recipe, shapes: ModelShapes, phase_index: int) -> float:
    context = recipe.context_lengths[phase_index]
    trained = trained_with_lora(recipe, shapes.rows, phase_index)
    return flops_per_token(recipe.model, shapes, context, trained)[UTILISATION_CONVENTION]


def _masked_flops_per_token(recipe: Recipe, shapes: ModelShapes, phase_index: int) -> float:
    kept = kept_counts(recipe.sparsity(phase_index), shapes.rows)
    trained = trained_with_lora(recipe, shapes.rows, phase_index)
    return masked_flops_per_token(shapes.rows, kept, trained)
