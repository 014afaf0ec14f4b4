"""Masks that move in a phase: the positions of their moves, and their cost by the ledger."""

from feldspar.core.errors import UserError
from feldspar.plan.timeline import Timeline
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.sparsity import GradualSparsity, MovingSettings
from feldspar.sparsity.schedule import MaskSchedule


def mask_schedule(recipe: Recipe, timeline: Timeline, phase_index: int) -> MaskSchedule | None:
    """Return the schedule of a phase's masks; None where they do not move.

    Raises UserError where begin and end do not lie in the phase, one before the other.
    """
    settings = recipe.sparsity(phase_index)
    if not isinstance(settings, MovingSettings):
        return None
    phase, key = timeline.phases[phase_index], f"phases.{phase_index}.sparsity"
    begin = timeline.place(settings.begin, phase, f"{key}.begin")
    end = timeline.place(settings.end, phase, f"{key}.end")
    if not begin < end <= phase.length:
        raise UserError(
            f"{key}.end: it must lie after begin and within the phase",
            found=f"{end:,} tokens, begin at {begin:,}",
            allowed=f"{begin + 1:,} to {phase.length:,} tokens",
        )
    every = timeline.interval(settings.every, phase, f"{key}.every")
    return MaskSchedule(every, begin, end, isinstance(settings, GradualSparsity))
