"""Batch schedules as stretches of equal steps, and the micro-batches of a step.

Steps and positions convert exactly. A micro-batch holds the sequences that one process computes at
a time; the functions give its size as far as it is known in advance.
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from feldspar.core.errors import UserError
from feldspar.recipe.amounts import Unit
from feldspar.recipe.sections.batch import Batch, BatchByTokens, BatchRamp, ConstantBatch
from feldspar.recipe.sections.noise_scale import NoiseScaleBatch
from feldspar.recipe.sections.vision import ImageBatch


@dataclass(frozen=True)
class Level:
    """A batch size and where it begins: a step or a position of the phase."""

    sequences: int
    from_position: int | None = None
    from_step: int | None = None


@dataclass(frozen=True)
class Stretch:
    """Consecutive steps of one batch size, positions counted from the phase's start."""

    start_step: int
    start_position: int
    steps: int
    sequences: int
    step_length: int

    @property
    def end_position(self) -> int:
        """Position after the last step."""
        return self.start_position + self.steps * self.step_length


def batch_levels(batch: Batch | ImageBatch, context_length: int, key: str) -> tuple[Level, ...]:
    """Return the levels of a batch schedule. A schedule by noise scale has its minimum only.

    Raises UserError when a batch holds no whole sequence.
    """
    if isinstance(batch, ImageBatch):
        return (Level(batch.images, from_position=0),)
    if isinstance(batch, ConstantBatch):
        sequences = batch.sequences or int(batch.tokens or 0) // context_length
        if sequences == 0:
            raise UserError(
                f"{key}.tokens: {batch.tokens:g} tokens hold no sequence of {context_length}",
                allowed=f"at least {context_length}",
            )
        return (Level(sequences, from_position=0),)
    if isinstance(batch, BatchByTokens):
        return tuple(
            Level(level.sequences, from_step=int(level.from_.value))
            if level.from_.unit is Unit.STEPS
            else Level(level.sequences, from_position=int(level.from_.value))
            for level in batch.levels
        )
    if isinstance(batch, NoiseScaleBatch):
        return (Level(int(batch.minimum.value), from_position=0),)
    return _ramp_levels(batch)


def _ramp_levels(batch: BatchRamp) -> tuple[Level, ...]:
    """Return a ramp's levels: quantum k + 1 begins just after the line crosses quantum k."""
    start, end = int(batch.from_.value), int(batch.to.value)
    quantum, over = int(batch.quantum.value), Fraction(batch.over.value)
    levels = [Level(start, from_position=0)]
    for sequences in range(start + quantum, end + 1, quantum):
        crossing = Fraction(sequences - quantum - start, end - start) * over
        levels.append(Level(sequences, from_position=int(crossing) + 1))
    return tuple(levels)


def lay_out(
    levels: tuple[Level, ...],
    context_length: int,
    *,
    limit_length: int | None = None,
    limit_steps: int | None = None,
) -> tuple[Stretch, ...]:
    """Return the stretches of a phase of at most ``limit_length``, or of ``limit_steps`` steps."""
    stretches: list[Stretch] = []
    step = position = 0
    for index, level in enumerate(levels):
        per_step = level.sequences * context_length
        upcoming = levels[index + 1] if index + 1 < len(levels) else None
        counts = [
            _steps_until(upcoming, step, position, per_step),
            None if limit_steps is None else limit_steps - step,
            None if limit_length is None else (limit_length - position) // per_step,
        ]
        steps = min(count for count in counts if count is not None)
        if steps > 0:
            stretches.append(Stretch(step, position, steps, level.sequences, per_step))
            step += steps
            position += steps * per_step
        if upcoming is not None and not _reached(upcoming, step, position):
            break
    return tuple(stretches)


def fill_up(
    stretches: tuple[Stretch, ...], quantum: int, context_length: int, limit_length: int
) -> tuple[Stretch, ...]:
    """Add a shorter step if ``limit_length`` leaves room for whole quanta of sequences."""
    if not stretches:
        return stretches
    last = stretches[-1]
    sequences = (limit_length - last.end_position) // context_length // quantum * quantum
    if sequences == 0:
        return stretches
    length = sequences * context_length
    return (
        *stretches,
        Stretch(last.start_step + last.steps, last.end_position, 1, sequences, length),
    )


def _steps_until(level: Level | None, step: int, position: int, per_step: int) -> int | None:
    if level is None:
        return None
    if level.from_step is not None:
        return max(0, level.from_step - step)
    assert level.from_position is not None
    return max(0, -(-(level.from_position - position) // per_step))


def _reached(level: Level, step: int, position: int) -> bool:
    if level.from_step is not None:
        return step >= level.from_step
    assert level.from_position is not None
    return position >= level.from_position


def position_at_step(stretches: tuple[Stretch, ...], step: int) -> int:
    """Return the position after ``step`` steps. After the end the last batch size continues."""
    index = bisect_right(stretches, step, key=lambda stretch: stretch.start_step) - 1
    stretch = stretches[max(index, 0)]
    return stretch.start_position + (step - stretch.start_step) * stretch.step_length


def step_at(stretches: tuple[Stretch, ...], position: int) -> int:
    """Return how many whole steps end at or before ``position``."""
    index = bisect_right(stretches, position, key=lambda stretch: stretch.start_position) - 1
    stretch = stretches[max(index, 0)]
    return stretch.start_step + (position - stretch.start_position) // stretch.step_length


def length_of_sequences(stretches: tuple[Stretch, ...], start: int, sequences: int) -> int:
    """Return the length of ``sequences`` sequences that begin at position ``start``.

    The stretch there gives the length of each sequence.
    """
    total = 0
    for index, stretch in enumerate(stretches):
        length = stretch.step_length // stretch.sequences
        room = max(stretch.end_position - max(start, stretch.start_position), 0) // length
        taken = sequences if index == len(stretches) - 1 else min(room, sequences)
        total += taken * length
        sequences -= taken
    return total


CPU_TOKENS = 4096
"""Tokens at a time on a processor. More tokens would only leave the caches."""


def check_divides(
    global_sequences: int, world_size: int, key: str, unit: str = "sequences"
) -> None:
    """Raise UserError when a step's sequences or images do not divide among the processes."""
    if global_sequences % world_size:
        low = global_sequences // world_size * world_size
        raise UserError(
            f"{key}: {global_sequences} {unit} do not divide among {world_size} processes",
            allowed=f"{low} or {low + world_size}" if low else str(world_size),
        )


def cpu_micro_batch(share_sequences: int, context_length: int) -> int:
    """Return the micro-batch of a processor, out of a process's share of a step."""
    return max(1, min(share_sequences, CPU_TOKENS // context_length))


def largest_micro_batch(share_sequences: int, fits: Callable[[int], bool]) -> int | None:
    """Return the largest of share, share / 2, share / 4, ... that fits; None when not
    even 1 does.
    """
    candidate = share_sequences
    while candidate:
        if fits(candidate):
            return candidate
        candidate //= 2
    return None
