"""Show a line during training: phase, step, loss, speed, share of the peak, time left."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from feldspar.core.progress import show

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

    def update(
        self, phase: str, step: int, position: int, loss: float, speed: Speed | None
    ) -> None:
        """Show the state after one step."""
        show(self.line(phase, step, position, loss, speed))

    def close(self) -> None:
        """Remove the line."""
        show(None)

    def line(self, phase: str, step: int, position: int, loss: float, speed: Speed | None) -> str:
        """Return the line's text."""
        share = position / self._length if self._length else 1.0
        parts = [phase, f"step {step:,}", f"{share:.1%}", f"loss {loss:.4f}"]
        if speed is not None:
            parts.append(f"{speed.positions_per_second:,.0f} {self._unit}/s")
            # A peak measured while other work ran is too low for a comparison.
            if self._peak and speed.flops_per_second <= self._peak:
                parts.append(f"{speed.flops_per_second / self._peak:.0%} of peak")
            if speed.positions_per_second > 0:
                left = max(self._length - position, 0) / speed.positions_per_second
                parts.append(f"{duration(left)} left")
        return " | ".join(parts)


def duration(seconds: float) -> str:
    """Return seconds in a short form: 45s, 3m20s, 2h05m, 3d04h."""
    whole = round(seconds)
    for size, unit, smaller, name in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // smaller:02d}{name}"
    return f"{whole}s"
