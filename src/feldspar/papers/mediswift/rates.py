"""The search for an arm's learning rate: two middle rates, then the neighbour of the better one.

Three runs of one seed thus cover four rates. That seed is none of those that the claims rest on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

RATE = "parametrization.learning_rate"
TUNING_SEED = 100

Curve = Sequence[tuple[float, float]]
"""Rates with their scores; lower scores are better."""
Curves = Mapping[str, Curve]
"""A curve of each arm."""


@dataclass(frozen=True)
class RateSearch:
    """Four rates in rising order."""

    rates: tuple[float, float, float, float]

    @property
    def first(self) -> tuple[float, float]:
        """The two middle rates, which are tried first."""
        return self.rates[1:3]

    def next(self, curve: Curve) -> float:
        """Return the rate to try after the middle ones; without scores, as in a plan, the last."""
        if not curve:
            return self.rates[3]
        return self.rates[0] if best_rate(curve) == self.rates[1] else self.rates[3]

    def is_edge(self, curve: Curve) -> bool:
        """Return True where the best rate is the least or the largest of the four."""
        return best_rate(curve) in (self.rates[0], self.rates[3])


def best_rate(curve: Curve) -> float:
    """Return the rate of the lowest score, of equal ones the first."""
    return min(curve, key=lambda point: point[1])[0]
