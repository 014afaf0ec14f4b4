"""Show a line during training: step, losses, learning rate, speed, share of the peak, time left."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from feldspar.core.progress import SEPARATOR, show
from feldspar.core.readable import amount, short_duration

SMOOTHING_SECONDS = 20.0
"""Time over which speed is averaged."""


@dataclass(frozen=True)
class Speed:
    """Speed of a run."""

    positions_per_second: float
    flops_per_second: float


class SpeedMeter:
    """Exponentially averaged speed; the first step (compiling, warming up) is left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: float | None = None
        self._seconds = self._positions = self._flops = 0.0

    def step(self, length: int, flops: float) -> Speed | None:
        """Count one finished step of all processes, of ``length`` positions; return None for the
        first."""
        now = self._clock()
        if self._last is not None:
            seconds = now - self._last
            keep = 2.0 ** (-seconds / SMOOTHING_SECONDS)
            self._seconds = keep * self._seconds + seconds
            self._positions = keep * self._positions + length
            self._flops = keep * self._flops + flops
        self._last = now
        if self._seconds <= 0:
            return None
        return Speed(self._positions / self._seconds, self._flops / self._seconds)

    def pause(self) -> None:
        """Leave out the time until the next step, for evaluation or a checkpoint."""
        self._last = None


@dataclass(frozen=True)
class Shown:
    """The state of a run after a step, as the display shows it."""

    phase: str
    step: int
    position: int
    loss: float
    learning_rate: float
    validation_loss: float | None
    """Loss of the last validation; None before the first one."""
    speed: Speed | None


class TrainingDisplay:
    """Show a line for each step in a terminal, and from time to time elsewhere."""

    def __init__(
        self,
        length: int,
        peak_flops_per_second: float | None = None,
        unit: str = "tokens",
    ) -> None:
        self._length = length
        self._peak = peak_flops_per_second
        self._unit = unit

    def begin(self) -> None:
        """Say that the first step takes longer than those that follow."""
        show("the first step takes longer: threads are tried, and a GPU compiles its kernels")

    def update(self, shown: Shown) -> None:
        """Show the state after one step."""
        show(self.line(shown))

    def close(self) -> None:
        """Remove the line."""
        show(None)

    def line(self, shown: Shown) -> str:
        """Return the line's text."""
        share = shown.position / self._length if self._length else 1.0
        parts = [shown.phase, f"step {shown.step:,}", f"{share:.1%}", f"loss {shown.loss:.4f}"]
        if shown.validation_loss is not None:
            parts.append(f"validation {shown.validation_loss:.4f}")
        parts.append(f"learning rate {shown.learning_rate:.3g}")
        speed = shown.speed
        if speed is not None:
            parts.append(f"{speed.positions_per_second:,.0f} {self._unit}/s")
            # A peak measured while other work ran is too low for a comparison.
            if self._peak and speed.flops_per_second <= self._peak:
                parts.append(f"{speed.flops_per_second / self._peak:.0%} of peak")
            if speed.positions_per_second > 0:
                left = max(self._length - shown.position, 0) / speed.positions_per_second
                parts.append(f"{short_duration(left)} left")
        return SEPARATOR.join(parts)


def peak_line(flops_per_second: float, measured: bool, precision: str) -> str:
    """Explain what the display's share of the peak is a share of."""
    speed = amount(flops_per_second)
    source = "the fastest matrix product measured here" if measured else "the data sheet's"
    return (
        f'peak: {speed}FLOP/s in {precision} ({source}); "of peak" is the share of it that '
        "training reaches"
    )
