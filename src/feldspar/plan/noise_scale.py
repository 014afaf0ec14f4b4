"""What measuring the noise scale asks of a recipe, and the distances that it is measured over."""

from feldspar.core.errors import UserError
from feldspar.core.rows import ModelShapes, Role, chosen_rows
from feldspar.noise_scale.settings import NoiseScaleSettings
from feldspar.plan.timeline import Timeline
from feldspar.recipe.root import Recipe

DEFAULT_SHARE = 100
"""The half-life is this part of the run,"""
LEAST_STEPS = 64
"""or so many steps of the first batch: fewer leave the signal's average undetermined."""


def half_life_tokens(settings: NoiseScaleSettings, timeline: Timeline) -> int:
    """Tokens after which a step counts half."""
    first = timeline.phases[0]
    if settings.half_life is not None:
        return timeline.interval_tokens(settings.half_life, first, "noise_scale.half_life")
    per_step = first.stretches[0].tokens_per_step
    return max(timeline.tokens // DEFAULT_SHARE, LEAST_STEPS * per_step)


def check_noise_scale(recipe: Recipe, shapes: ModelShapes, timeline: Timeline) -> None:
    """Raise UserError where a recipe asks to measure what has no noise scale.

    That is a step of a single sequence, and norm layers in a phase that trains none.
    """
    settings = recipe.noise_scale
    if settings is None:
        return
    for phase, own in zip(timeline.phases, recipe.phases, strict=True):
        key = f"phases.{phase.index}"
        smallest = phase.stretches[0].sequences
        if smallest < 2:
            raise UserError(
                f"{key}.batch: the noise scale needs at least two sequences a step, this phase "
                f"begins with {smallest}",
                do="enlarge the batch, or leave out noise_scale",
            )
        trained = chosen_rows(shapes.rows, own.trainable, f"{key}.trainable")
        by_norms = settings.estimator == "per_example" and settings.coverage == "norm"
        if by_norms and not any(row.role is Role.NORM for row in trained):
            raise UserError(
                f"{key}.trainable: the phase trains no norm layer, which noise_scale.coverage: "
                "norm measures",
                do="set noise_scale.coverage=all, or noise_scale.estimator=microbatch",
            )
