"""Loss against learning rate: where the optimum is, and how far it moved from another shape's.

Learning rates are compared in powers of two; a grid step is the distance of two neighbours.
"""

import math
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["holds", "moved", "unclear"]
COSTLY = 0.05
"""An excess that contradicts the claim even one grid step away (coarse grid, steep valley)."""


@dataclass(frozen=True)
class Curve:
    """The loss of one shape at each learning rate, rates ascending; infinite after divergence."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def index(self) -> int | None:
        """Place of the lowest loss; None where every run diverged."""
        best = min(range(len(self.losses)), key=self.losses.__getitem__)
        return best if math.isfinite(self.losses[best]) else None

    @property
    def rate(self) -> float | None:
        """The learning rate of the lowest loss."""
        return None if self.index is None else self.rates[self.index]

    @property
    def loss(self) -> float:
        """The lowest loss."""
        return min(self.losses)

    @property
    def at_edge(self) -> bool:
        """Whether the lowest loss is at an end of the grid: the optimum may lie outside."""
        return self.index in (None, 0, len(self.rates) - 1)

    @property
    def parabola_rate(self) -> float | None:
        """The lowest point of the parabola, over log2 of the rate, through the lowest loss and its
        two neighbours; None at an edge and beside a divergence."""
        index = self.index
        if index is None or self.at_edge:
            return None
        x = [math.log2(rate) for rate in self.rates[index - 1 : index + 2]]
        below, best, above = self.losses[index - 1 : index + 2]
        if not (math.isfinite(below) and math.isfinite(above)):
            return None
        left, right = (below - best) / (x[1] - x[0]), (above - best) / (x[2] - x[1])
        # A parabola's slope is linear, and that of a chord at its middle; it turns where it is 0.
        # The first of equal losses is the lowest, so that ``left`` is above zero.
        middle_left, middle_right = (x[0] + x[1]) / 2, (x[1] + x[2]) / 2
        turn = middle_left + left / (left + right) * (middle_right - middle_left)
        return 2.0**turn

    def excess(self, rate: float) -> float:
        """Return the loss at one of the rates over the lowest, minus one; infinite where it
        diverged.
        """
        loss = self.losses[self.rates.index(rate)]
        return loss / self.loss - 1 if math.isfinite(loss) else math.inf

    def steps(self, first: float, second: float) -> float:
        """Grid steps from one rate to another."""
        step = math.log2(self.rates[-1] / self.rates[0]) / (len(self.rates) - 1)
        return math.log2(second / first) / step


@dataclass(frozen=True)
class Move:
    """How a shape's optimum lies to the proxy's, and what the proxy's rate costs there.

    ``steps`` and ``parabola_steps`` are in grid steps, up positive; ``excess`` is the loss at the
    transferred rate over the shape's own lowest, minus one.
    """

    steps: int | None
    parabola_steps: float | None
    excess: float
    verdict: Verdict


def compare_curves(proxy: Curve, target: Curve, transferred: float) -> Move:
    """Compare two shapes over the same grid; ``transferred`` is the rate found on the proxy.

    The verdict: ``moved`` beyond one step of the grid, or where the transferred rate costs more
    than ``COSTLY``, ``unclear`` where an optimum at the edge may lie further out than the grid
    tells, else ``holds``.
    """
    excess = target.excess(transferred)
    if proxy.index is None or target.index is None:
        return Move(None, None, excess, "unclear" if proxy.index is None else "moved")
    steps = target.index - proxy.index
    turns = (proxy.parabola_rate, target.parabola_rate)
    parabola_steps = None if None in turns else proxy.steps(*turns)  # pyrefly: ignore
    if abs(steps) > 1 or excess > COSTLY:
        return Move(steps, parabola_steps, excess, "moved")
    unclear = proxy.at_edge or target.at_edge
    return Move(steps, parabola_steps, excess, "unclear" if unclear else "holds")
