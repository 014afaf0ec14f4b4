"""Batch schedules as stretches of equal steps, so that steps and tokens convert exactly."""

from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction

from feldspar.core.errors import UserError
from feldspar.recipe.amounts import Unit
from feldspar.recipe.sections.batch import Batch, BatchByTokens, BatchRamp, ConstantBatch
from feldspar.recipe.sections.noise_scale import NoiseScaleBatch
from feldspar.recipe.sections.vision import ImageBatch


@dataclass(frozen=True)
class Level:
    """A batch size and where it begins: a step or a token position of the phase."""

    sequences: int
    from_tokens: int | None = None
    from_steps: int | None = None


@dataclass(frozen=True)
class Stretch:
    """Consecutive steps of one batch size, positions counted from the phase's start."""

    start_step: int
    start_tokens: int
    steps: int
    sequences: int
    tokens_per_step: int

    @property
    def end_tokens(self) -> int:
        """Position after the last step."""
        return self.start_tokens + self.steps * self.tokens_per_step


def batch_levels(batch: Batch | ImageBatch, context_length: int, key: str) -> tuple[Level, ...]:
    """The stairs of a batch schedule; of one that follows the noise scale its minimum.

    Raises UserError when a batch holds no whole sequence.
    """
    if isinstance(batch, ImageBatch):
        return (Level(batch.images, from_tokens=0),)
    if isinstance(batch, ConstantBatch):
        sequences = batch.sequences or int(batch.tokens or 0) // context_length
        if sequences == 0:
            raise UserError(
                f"{key}.tokens: {batch.tokens:g} tokens hold no sequence of {context_length}",
                allowed=f"at least {context_length}",
            )
        return (Level(sequences, from_tokens=0),)
    if isinstance(batch, BatchByTokens):
        return tuple(
            Level(level.sequences, from_steps=int(level.from_.value))
            if level.from_.unit is Unit.STEPS
            else Level(level.sequences, from_tokens=int(level.from_.value))
            for level in batch.levels
        )
    if isinstance(batch, NoiseScaleBatch):
        return (Level(int(batch.minimum.value), from_tokens=0),)
    return _ramp_levels(batch)


def _ramp_levels(batch: BatchRamp) -> tuple[Level, ...]:
    """A ramp rounds up to whole quanta: quantum k + 1 begins just after the line crosses k."""
    start, end = int(batch.from_.value), int(batch.to.value)
    quantum, over = int(batch.quantum.value), Fraction(batch.over.value)
    levels = [Level(start, from_tokens=0)]
    for sequences in range(start + quantum, end + 1, quantum):
        crossing = Fraction(sequences - quantum - start, end - start) * over
        levels.append(Level(sequences, from_tokens=int(crossing) + 1))
    return tuple(levels)


def lay_out(
    levels: tuple[Level, ...],
    context_length: int,
    *,
    limit_tokens: int | None = None,
    limit_steps: int | None = None,
) -> tuple[Stretch, ...]:
    """The stretches of a phase of at most ``limit_tokens`` tokens or exactly ``limit_steps``."""
    stretches: list[Stretch] = []
    step = tokens = 0
    for index, level in enumerate(levels):
        per_step = level.sequences * context_length
        upcoming = levels[index + 1] if index + 1 < len(levels) else None
        counts = [
            _steps_until(upcoming, step, tokens, per_step),
            None if limit_steps is None else limit_steps - step,
            None if limit_tokens is None else (limit_tokens - tokens) // per_step,
        ]
        steps = min(count for count in counts if count is not None)
        if steps > 0:
            stretches.append(Stretch(step, tokens, steps, level.sequences, per_step))
            step += steps
            tokens += steps * per_step
        if upcoming is not None and not _reached(upcoming, step, tokens):
            break
    return tuple(stretches)


def fill_up(
    stretches: tuple[Stretch, ...], quantum: int, context_length: int, limit_tokens: int
) -> tuple[Stretch, ...]:
    """One more, shorter step where whole quanta of sequences are left of ``limit_tokens``."""
    if not stretches:
        return stretches
    last = stretches[-1]
    sequences = (limit_tokens - last.end_tokens) // context_length // quantum * quantum
    if sequences == 0:
        return stretches
    tokens = sequences * context_length
    return (
        *stretches,
        Stretch(last.start_step + last.steps, last.end_tokens, 1, sequences, tokens),
    )


def _steps_until(level: Level | None, step: int, tokens: int, per_step: int) -> int | None:
    if level is None:
        return None
    if level.from_steps is not None:
        return max(0, level.from_steps - step)
    assert level.from_tokens is not None
    return max(0, -(-(level.from_tokens - tokens) // per_step))


def _reached(level: Level, step: int, tokens: int) -> bool:
    if level.from_steps is not None:
        return step >= level.from_steps
    assert level.from_tokens is not None
    return tokens >= level.from_tokens


def tokens_at_step(stretches: tuple[Stretch, ...], step: int) -> int:
    """Tokens seen after ``step`` steps; past the end the last batch size goes on."""
    index = bisect_right(stretches, step, key=lambda stretch: stretch.start_step) - 1
    stretch = stretches[max(index, 0)]
    return stretch.start_tokens + (step - stretch.start_step) * stretch.tokens_per_step


def step_at_tokens(stretches: tuple[Stretch, ...], tokens: int) -> int:
    """Whole steps that fit into the first ``tokens`` tokens."""
    index = bisect_right(stretches, tokens, key=lambda stretch: stretch.start_tokens) - 1
    stretch = stretches[max(index, 0)]
    return stretch.start_step + (tokens - stretch.start_tokens) // stretch.tokens_per_step


def tokens_of_sequences(stretches: tuple[Stretch, ...], start: int, sequences: int) -> int:
    """Tokens of ``sequences`` sequences from position ``start`` on, each as long as it is there."""
    tokens = 0
    for index, stretch in enumerate(stretches):
        length = stretch.tokens_per_step // stretch.sequences
        room = max(stretch.end_tokens - max(start, stretch.start_tokens), 0) // length
        taken = sequences if index == len(stretches) - 1 else min(room, sequences)
        tokens += taken * length
        sequences -= taken
    return tokens
