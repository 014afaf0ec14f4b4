"""Masks that move in a phase: the positions of their moves, and their cost by the ledger."""

from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from typing import Any

from feldspar.core.errors import UserError
from feldspar.core.rows import ParameterRow
from feldspar.plan.batches import position_at_step, step_at
from feldspar.plan.timeline import PhasePlan, Timeline
from feldspar.recipe.root import Recipe
from feldspar.recipe.sections.sparsity import GradualSparsity, MovingSettings
from feldspar.sparsity.density import kept_entries, sparsities, starting_sparsities
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


def density_warning(recipe: Recipe, phase_index: int) -> str | None:
    """Return a warning where multipliers follow a density that a phase reaches late, or None."""
    settings = recipe.sparsity(phase_index)
    if recipe.parametrization.type != "supar" or not isinstance(settings, GradualSparsity):
        return None
    if settings.initial_sparsity == settings.sparsity:
        return None
    return (
        f"phases.{phase_index}.sparsity: the table of supar is that of the final sparsity, "
        f"{settings.sparsity:g}; until the masks reach it, the phase is denser than the table says "
        "and its learning rates are too high for it"
    )


def move_positions(phase: PhasePlan, schedule: MaskSchedule) -> Iterator[int]:
    """Yield the positions, counted from the phase's start, of steps that end with a move."""
    position = schedule.begin
    while True:
        multiple = (position // schedule.every + 1) * schedule.every
        position = _end_of_step(phase, multiple)
        if position >= schedule.end:
            break
        yield position
    if schedule.prunes:
        yield _end_of_step(phase, schedule.end)


def mean_kept(
    settings: GradualSparsity,
    rows: Collection[ParameterRow],
    trained: Collection[str],
    phase: PhasePlan,
    schedule: MaskSchedule,
) -> dict[str, float]:
    """Return the kept entries of each masked matrix, averaged over the tokens of a phase.

    ``trained`` names the parameters that the phase trains; the masks of others do not move.
    """
    final = sparsities(settings, rows)
    first = starting_sparsities(settings, final)
    moves = [*move_positions(phase, schedule), phase.length]
    known: dict[tuple[int, float, float], float] = {}
    kept: dict[str, float] = {}
    for row in rows:
        if row.name not in final:
            continue
        start = first[row.name]
        goal = final[row.name] if row.name in trained else start
        if (row.count, start, goal) not in known:
            total = kept_entries(row, start, settings) * moves[0]
            for begin, end in pairwise(moves):
                share = schedule.pruned_share(start, goal, begin)
                total += kept_entries(row, share, settings) * (end - begin)
            known[row.count, start, goal] = total / phase.length
        kept[row.name] = known[row.count, start, goal]
    return kept


def dense_gradient_flops(
    rows: Collection[ParameterRow],
    kept: Mapping[str, int],
    trained: Collection[str],
    phase: PhasePlan,
    schedule: MaskSchedule,
) -> float:
    """Return the FLOPs of a phase that RigL needs beside those of static masks.

    While masks move every D steps, a step has (3 s D + 2 s + d) / (D + 1) FLOPs on average, where s
    and d are those of a sparse and a dense forward pass (1911.11134).
    """
    zeros = sum(row.count - kept.get(row.name, row.count) for row in rows if row.name in trained)
    return 2.0 * zeros * _dense_tokens(phase, schedule)


def moves_record(
    settings: MovingSettings, phase: PhasePlan, schedule: MaskSchedule, static: float, added: float
) -> dict[str, Any]:
    """Describe the moves of a phase's masks as plain values.

    ``static`` are the phase's FLOPs without the FLOPs ``added`` by dense gradients.
    """
    tokens = schedule.end - schedule.begin
    return {
        "type": settings.type,
        "moves": sum(1 for _ in move_positions(phase, schedule)),
        "every_tokens": schedule.every,
        "begin_tokens": schedule.begin,
        "end_tokens": schedule.end,
        "flops_over_static": 1 + added / (static / phase.length * tokens),
    }


def _end_of_step(phase: PhasePlan, position: int) -> int:
    """Return the position after the step in which, or at whose end, ``position`` lies."""
    stretches = phase.stretches
    return position_at_step(stretches, step_at(stretches, position - 1) + 1)


def _dense_tokens(phase: PhasePlan, schedule: MaskSchedule) -> float:
    """Return 1 / (D + 1) of the tokens while masks move every D steps."""
    total = 0.0
    for stretch in phase.stretches:
        begin = max(stretch.start_position, schedule.begin)
        inside = max(min(stretch.end_position, schedule.end) - begin, 0)
        total += inside * stretch.step_length / (schedule.every + stretch.step_length)
    return total
