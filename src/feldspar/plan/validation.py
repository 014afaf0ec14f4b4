"""Size of the validations during training, as a share of the training's FLOPs.

It follows from the recipe and the names of its sources, never from measured time: a run that is
repeated or continued measures the same sequences.
"""

from dataclasses import dataclass
from typing import Any

from feldspar.core.rows import ModelShapes
from feldspar.plan.flops import UTILISATION_CONVENTION, flops_per_token
from feldspar.plan.timeline import PhasePlan, Timeline
from feldspar.plan.trained import trained_with_lora
from feldspar.recipe.root import Recipe

MOST_SEQUENCES = 64
"""Most sequences of a source in each validation."""
LARGEST_SHARE = 0.05
"""Largest share of the training's FLOPs for all validations together."""
FORWARD_SHARE = 1 / 3
"""Share of the forward pass, the only pass of a validation, in a training step's FLOPs."""


@dataclass(frozen=True)
class Validation:
    """All validations of a run."""

    times: int
    """Count the validations of a run, at most."""
    sequences: int
    """Sequences of each source in each validation."""
    share: float | None
    """FLOPs of validations over those of the training. None if the number of sources is unknown."""

    def record(self) -> dict[str, Any]:
        """Return plain values."""
        return {"times": self.times, "sequences": self.sequences, "share": self.share}


def plan_validation(
    recipe: Recipe, shapes: ModelShapes, timeline: Timeline, n_sources: int | None
) -> Validation:
    """Take the number of sequences from the recipe, or as many as ``LARGEST_SHARE`` allows.

    Each source has at least one. An unknown number of sources counts as one.
    """
    training = one_sequence = 0.0
    times = 0
    for phase in timeline.phases:
        trained = trained_with_lora(recipe, shapes.rows, phase.index)
        flops, own = (
            flops_per_token(recipe.model, shapes, phase.context_length, rows)[
                UTILISATION_CONVENTION
            ]
            for rows in (None, trained)
        )
        training += own * phase.length
        in_phase = _times(recipe, timeline, phase)
        one_sequence += FORWARD_SHARE * flops * phase.context_length * in_phase
        times += in_phase
    each_source = one_sequence * (n_sources or 1)
    wanted = recipe.evaluation.validation_sequences
    if wanted == "auto":
        wanted = max(1, min(MOST_SEQUENCES, int(LARGEST_SHARE * training / each_source)))
    share = None if n_sources is None else wanted * each_source / training
    return Validation(times, wanted, share)


def _times(recipe: Recipe, timeline: Timeline, phase: PhasePlan) -> int:
    """Count the validations of a phase, at most: one for each interval that begins."""
    every = recipe.phases[phase.index].evaluate_every or recipe.evaluation.every
    interval = timeline.interval(every, phase, "evaluation.every")
    return min(phase.steps, -(-phase.length // interval))
