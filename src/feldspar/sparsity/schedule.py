"""Positions in a phase at which masks move, and the amount that they move; loads no torch."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class MaskSchedule:
    """The moves of a phase's masks. Positions count from the phase's start."""

    every: int
    """Masks move at the steps in which a multiple of this position lies."""
    begin: int
    """Masks move only after this position."""
    end: int
    """Masks move only before this position, except that pruning ends at it."""
    prunes: bool = False
    """True for gradual pruning, whose last move is the first step that reaches the end."""

    def is_due(self, before: int, after: int) -> bool:
        """Tell whether masks move at the end of the step between two positions (1911.11134)."""
        if self.prunes and before < self.end <= after:
            return True
        return self.begin < after < self.end and before // self.every < after // self.every

    def progress(self, position: int) -> float:
        """Return the share of the way from begin to end that lies before ``position``."""
        share = (position - self.begin) / (self.end - self.begin)
        return min(max(share, 0.0), 1.0)

    def drop_fraction(self, first: float, position: int) -> float:
        """Return the share of kept entries that a move drops: first / 2 (1 + cos(pi progress)).

        Source: 1911.11134, section 3.
        """
        return first / 2 * (1 + math.cos(math.pi * self.progress(position)))

    def pruned_share(self, first: float, last: float, position: int) -> float:
        """Return the share of zeros after a move: last + (first - last) (1 - progress)^3.

        Source: 1710.01878, equation 1.
        """
        return last + (first - last) * (1 - self.progress(position)) ** 3
