"""Gains of one run over another, and the spread of the seeds.

Losses are compared seed by seed: another seed reads another text, which moves all of them alike.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from feldspar.core.student_t import half_width

POWER = 0.8
"""The probability with which a design should find a difference that ``Gain.detectable`` names."""


@dataclass(frozen=True)
class Gain:
    """The share by which a loss is lower than another one, seed by seed."""

    by_seed: tuple[float, ...]

    @classmethod
    def of(cls, losses: Sequence[float], reference: Sequence[float]) -> "Gain":
        """Return the gain of ``losses`` over ``reference``, both by seed."""
        pairs = zip(losses, reference, strict=True)
        return cls(tuple(1 - own / other for own, other in pairs))

    @classmethod
    def of_shares(cls, shares: Sequence[float], reference: Sequence[float]) -> "Gain":
        """Return the difference of shares of one whole, such as accuracies, both by seed."""
        return cls(tuple(own - other for own, other in zip(shares, reference, strict=True)))

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return sum(self.by_seed) / len(self.by_seed)

    @property
    def half_width(self) -> float | None:
        """Half the 95 % interval of the mean by Student's t; None for one seed."""
        return half_width(self.by_seed)

    @property
    def low(self) -> float:
        """The lower end of the interval; for one seed, which has none, its gain."""
        return self.mean - (self.half_width or 0.0)

    @property
    def high(self) -> float:
        """The upper end of the interval; for one seed, which has none, its gain."""
        return self.mean + (self.half_width or 0.0)

    def exceeds(self, noise: float) -> bool:
        """Return True for a mean above ``noise`` whose interval lies above zero.

        ``noise`` is the share below which differences count as noise of the seed in any case. A run
        that diverged has no gain.
        """
        return self.mean > noise and self.low > 0

    def is_at_least(self, margin: float) -> bool:
        """Return True where the whole interval lies at or above ``margin``, fixed beforehand.

        Noise widens the interval, so that a noisier experiment passes less easily.
        """
        return self.low >= margin

    @property
    def detectable(self) -> float | None:
        """The smallest true difference that the design finds with probability POWER.

        It is (t(0.975) + t(POWER)) standard errors, by Student's t. None for one seed.
        """
        significant, found = self.half_width, half_width(self.by_seed, 2 * POWER - 1)
        return None if significant is None or found is None else significant + found

    def __str__(self) -> str:
        return self.worded()

    @property
    def lower_or_higher(self) -> str:
        """The mean as a share lower or higher, and half its interval."""
        return self.worded("lower", "higher")

    def worded(self, more: str = "", less: str = "") -> str:
        """Return the mean and half its interval; with ``more`` or ``less`` for the sign."""
        if not math.isfinite(self.mean):
            return "a run diverged"
        count, half = len(self.by_seed), self.half_width
        spread = "one seed" if half is None else f"+- {half:.2%} over {count} seeds"
        if not more:
            return f"{self.mean:.2%} ({spread})"
        return f"{abs(self.mean):.2%} {more if self.mean >= 0 else less} ({spread})"


def power(gain: Gain) -> str:
    """Word the smallest true difference that the design finds; empty for one seed."""
    if gain.detectable is None:
        return ""
    return f" (a true difference of {gain.detectable:.2%} is found in {POWER:.0%} of cases)"


def relative_spread(losses: Sequence[float]) -> float | None:
    """Return the sample standard deviation as a share of the mean; None for one loss."""
    if len(losses) < 2:
        return None
    mean = sum(losses) / len(losses)
    squares = sum((loss - mean) ** 2 for loss in losses)
    return math.sqrt(squares / (len(losses) - 1)) / mean
