"""Choose the batch size by the noise scale: pure decisions, reproducible anywhere.

Positions are tokens of the phase. A decision is due after each half of a half-life, when the
learning rate has warmed up and the averages have forgotten the batch before (two half-lives). The
batch is raised by the lower end of the band and lowered by its upper end; the gap prevents
oscillation. An undetermined noise scale changes nothing.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, Literal

from feldspar.core.errors import UserError
from feldspar.recipe.sections.noise_scale import NoiseScaleBatch

DWELL_HALF_LIVES = 2
"""Number of half-lives after which the averages have forgotten the batch before."""
LOWERING_MARGIN = 0.2
"""Share by which the target must be below the next lower level."""
LARGEST_RATE_FACTOR = 2.0

Action = Literal["raise", "lower", "hold"]


@dataclass(frozen=True)
class Reading:
    """Noise scale of the model in sequences, and its band."""

    value: float
    low: float
    high: float

    @property
    def determined(self) -> bool:
        """True if the noise scale is determined."""
        return self.value > 0 and self.low > 0


@dataclass(frozen=True)
class Decision:
    """A decision at a position of the phase, and its reason."""

    tokens: int
    before: int
    after: int
    target: float
    """Target batch in sequences, within the smallest and the largest level; NaN while
    undetermined."""
    reason: str

    @property
    def action(self) -> Action:
        """Direction in which the batch changed."""
        if self.after == self.before:
            return "hold"
        return "raise" if self.after > self.before else "lower"

    def record(self) -> dict[str, Any]:
        """Return the record for metrics.jsonl."""
        return {
            "batch/action": self.action,
            "batch/reason": self.reason,
            "batch/target": self.target,
            "batch/sequences": self.after,
        }


def batch_sizes(settings: NoiseScaleBatch, quantum: int) -> tuple[int, ...]:
    """Return the levels in sequences: powers of the ratio from the minimum, rounded up to whole
    quanta.

    Raises UserError if no multiple of ``quantum`` is between minimum and maximum.
    """
    least = math.ceil(settings.minimum.value / quantum)
    most = int(settings.maximum.value) // quantum
    if least > most:
        raise UserError(
            f"no multiple of {quantum} sequences is between {settings.minimum} and "
            f"{settings.maximum}",
            do="raise the batch's maximum, or choose another quantum",
        )
    sizes = [least]
    exact = float(least)
    while sizes[-1] < most:
        exact *= settings.level_ratio
        # The tolerance treats sqrt(2)^2 as 2.
        size = min(math.ceil(exact * (1 - 1e-9)), most)
        if size > sizes[-1]:
            sizes.append(size)
    return tuple(quantum * size for size in sizes)


class BatchController:
    """Batch size of one phase, from its beginning or from a checkpoint.

    ``quantum`` is in sequences; ``warmup_tokens`` is the position in the phase where the learning
    rate has warmed up. Raises UserError for a half-life that is not positive, and as
    ``batch_sizes``.
    """

    def __init__(
        self, settings: NoiseScaleBatch, quantum: int, half_life_tokens: float, warmup_tokens: int
    ) -> None:
        if not 0 < half_life_tokens < math.inf:
            raise UserError("the half-life must be positive", found=half_life_tokens)
        self.settings = settings
        self.quantum = quantum
        self.levels = batch_sizes(settings, quantum)
        self._level = 0
        self._last_change = 0
        self._distance = max(int(half_life_tokens / 2), 1)
        self._dwell = DWELL_HALF_LIVES * half_life_tokens
        self._first = max(warmup_tokens, self._dwell)

    @property
    def sequences(self) -> int:
        """Number of sequences of the next step."""
        return self.levels[self._level]

    @property
    def learning_rate_factor(self) -> float:
        """Factor of the scheduled learning rate."""
        growth = self.sequences / self.levels[0]
        return min(growth**self.settings.learning_rate_power, LARGEST_RATE_FACTOR)

    def due(self, before: int, after: int) -> bool:
        """Tell whether a decision follows the step that led from ``before`` to ``after`` tokens."""
        return after >= self._first and before // self._distance < after // self._distance

    def decide(self, tokens: int, reading: Reading, overhead: float | None = None) -> Decision:
        """Take the decision that is due after ``tokens`` tokens of the phase.

        ``overhead`` is the part of a step's time that does not depend on the batch, in sequences
        (for the objective time). None: unknown, because it takes steps of two batch sizes to
        measure it.
        """
        before = self.sequences
        target, reason = self._choose(tokens, reading, overhead)
        if not math.isnan(target):
            target = float(min(max(target, self.levels[0]), self.levels[-1]))
        if self.sequences != before:
            self._last_change = tokens
        return Decision(tokens, before, self.sequences, target, reason)

    def _choose(self, tokens: int, reading: Reading, overhead: float | None) -> tuple[float, str]:
        if not reading.determined:
            return math.nan, "undetermined"
        target = self._target(reading.low, overhead)
        if self._last_change and tokens < self._last_change + self._dwell:
            return target, "changed lately"
        wanted = bisect_right(self.levels, target) - 1
        if wanted > self._level:
            allowed = bisect_right(self.levels, self.settings.max_factor * self.sequences) - 1
            self._level = min(wanted, max(allowed, self._level + 1))
            return target, "the low end of the band allows it"
        if self._level == len(self.levels) - 1 and target >= self.sequences:
            return target, "at the maximum"
        if self.settings.monotone or self._level == 0:
            return target, "within reach of the level"
        ceiling = self._target(reading.high, overhead)
        if ceiling < self.levels[self._level - 1] * (1 - LOWERING_MARGIN):
            self._level -= 1
            return ceiling, "the high end of the band asks for it"
        return target, "within reach of the level"

    def _target(self, noise_scale: float, overhead: float | None) -> float:
        if self.settings.objective == "time" and overhead is not None:
            return math.sqrt(overhead * noise_scale)
        return self.settings.gain * noise_scale

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint, as JSON."""
        return {"sequences": self.sequences, "last_change": self._last_change}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint, at the nearest level that is not above its batch."""
        self._level = max(bisect_right(self.levels, state["sequences"]) - 1, 0)
        self._last_change = int(state["last_change"])
