"""Loss over learning rate: find the optimum, and how far it moved for another model size.

Learning rates are compared in powers of two; a grid step is the distance of two neighbours.
"""

import math
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["holds", "moved", "unclear"]
COSTLY = 0.05
"""Excess loss that contradicts the claim even one grid step away (coarse grid, steep valley)."""


@dataclass(frozen=True)
class Curve:
    """Loss of one model size at each learning rate, in ascending order; infinite after
    divergence."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def index(self) -> int | None:
        """Index of the lowest loss; None if every run diverged."""
        best = min(range(len(self.losses)), key=self.losses.__getitem__)
        return best if math.isfinite(self.losses[best]) else None

    @property
    def rate(self) -> float | None:
        """Learning rate of the lowest loss."""
        return None if self.index is None else self.rates[self.index]

    @property
    def loss(self) -> float:
        """Lowest loss."""
        return min(self.losses)

    @property
    def at_edge(self) -> bool:
        """True if the lowest loss is at an end of the grid; the optimum may be outside."""
        return self.index in (None, 0, len(self.rates) - 1)

    @property
    def parabola_rate(self) -> float | None:
        """Minimum of the parabola, over log2 of the rate, through the lowest loss and its two
        neighbours; None at an edge and beside a divergence."""
        index = self.index
        if index is None or self.at_edge:
            return None
        x = [math.log2(rate) for rate in self.rates[index - 1 : index + 2]]
        below, best, above = self.losses[index - 1 : index + 2]
        if not (math.isfinite(below) and math.isfinite(above)):
            return None
        left, right = (below - best) / (x[1] - x[0]), (above - best) / (x[2] - x[1])
        # The slope of a parabola is linear, and equals that of a chord at its middle. The minimum
        # is where the slope is 0.
        # Of equal losses the first counts as the lowest, so ``left`` is above zero.
        middle_left, middle_right = (x[0] + x[1]) / 2, (x[1] + x[2]) / 2
        turn = middle_left + left / (left + right) * (middle_right - middle_left)
        return 2.0**turn

    def excess(self, rate: float) -> float:
        """Return (loss at this rate) / (lowest loss) - 1; infinite if it diverged."""
        loss = self.losses[self.rates.index(rate)]
        return loss / self.loss - 1 if math.isfinite(loss) else math.inf

    def steps(self, first: float, second: float) -> float:
        """Return the number of grid steps from one rate to another."""
        step = math.log2(self.rates[-1] / self.rates[0]) / (len(self.rates) - 1)
        return math.log2(second / first) / step


@dataclass(frozen=True)
class OptimumShift:
    """Distance of a model's optimum from the proxy's, and the cost of the proxy's rate there.

    ``steps`` and ``parabola_steps`` are in grid steps, positive upwards. ``excess`` is the loss at
    the transferred rate divided by the model's lowest loss, minus one.
    """

    steps: int | None
    parabola_steps: float | None
    excess: float
    verdict: Verdict


def compare_curves(proxy: Curve, target: Curve, transferred: float) -> OptimumShift:
    """Compare two model sizes on the same grid; ``transferred`` is the rate found on the proxy.

    The verdict is ``moved`` if the optimum moved by more than one grid step, or if the transferred
    rate costs more than ``COSTLY``. It is ``unclear`` if an optimum at the edge may be further out,
    else ``holds``.
    """
    excess = target.excess(transferred)
    if proxy.index is None or target.index is None:
        return OptimumShift(None, None, excess, "unclear" if proxy.index is None else "moved")
    steps = target.index - proxy.index
    turns = (proxy.parabola_rate, target.parabola_rate)
    parabola_steps = None if None in turns else proxy.steps(*turns)  # pyrefly: ignore
    if abs(steps) > 1 or excess > COSTLY:
        return OptimumShift(steps, parabola_steps, excess, "moved")
    unclear = proxy.at_edge or target.at_edge
    return OptimumShift(steps, parabola_steps, excess, "unclear" if unclear else "holds")
