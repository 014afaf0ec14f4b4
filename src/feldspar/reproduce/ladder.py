"""A ladder of changes: how much each lowers the loss, beside the spread of the seeds.

Losses are compared seed by seed: another seed reads another text, which moves all of them alike.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from feldspar.report.page import Table

NOISE = 0.005
"""Differences below this share of the loss are noise of the seed at small scale."""


@dataclass(frozen=True)
class Gain:
    """How much lower the loss is than another's, seed by seed, as a share of the latter."""

    by_seed: tuple[float, ...]
    noise: float = NOISE
    """What counts as noise in any case."""

    @classmethod
    def of(
        cls, losses: Sequence[float], reference: Sequence[float], noise: float = NOISE
    ) -> "Gain":
        """The gain of ``losses`` over ``reference``, both by seed."""
        pairs = zip(losses, reference, strict=True)
        return cls(tuple(1 - own / other for own, other in pairs), noise)

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return sum(self.by_seed) / len(self.by_seed)

    @property
    def standard_error(self) -> float | None:
        """Of the mean; None for one seed."""
        count = len(self.by_seed)
        if count < 2:
            return None
        squares = sum((gain - self.mean) ** 2 for gain in self.by_seed)
        return math.sqrt(squares / (count - 1) / count)

    @property
    def threshold(self) -> float:
        """What the mean has to exceed to be more than noise."""
        return max(self.noise, 2 * (self.standard_error or 0.0))

    @property
    def is_clear(self) -> bool:
        """Whether it does; a run that diverged has no gain."""
        return self.mean > self.threshold

    def __str__(self) -> str:
        return self.worded()

    @property
    def lower_or_higher(self) -> str:
        """The mean as a share lower or higher, and its error."""
        return self.worded("lower", "higher")

    def worded(self, more: str = "", less: str = "") -> str:
        """The mean and its error; with the sign as a word, ``more`` or ``less``, where given."""
        if not math.isfinite(self.mean):
            return "a run diverged"
        count, error = len(self.by_seed), self.standard_error
        spread = "one seed" if error is None else f"+- {error:.2%} over {count} seeds"
        if not more:
            return f"{self.mean:.2%} ({spread})"
        return f"{abs(self.mean):.2%} {more if self.mean >= 0 else less} ({spread})"


def relative_spread(losses: Sequence[float]) -> float | None:
    """Sample standard deviation as a share of the mean; None for one loss."""
    if len(losses) < 2:
        return None
    mean = sum(losses) / len(losses)
    squares = sum((loss - mean) ** 2 for loss in losses)
    return math.sqrt(squares / (len(losses) - 1)) / mean


def ladder_table(losses: Mapping[str, Sequence[float]], base: str) -> Table:
    """A row a rung: mean loss, the seeds' spread, and the gain over ``base``."""
    rows = []
    for name, own in losses.items():
        spread = relative_spread(own)
        rows.append(
            [
                name,
                f"{sum(own) / len(own):.4f}",
                "-" if spread is None else f"{spread:.2%}",
                "" if name == base else str(Gain.of(own, losses[base])),
            ]
        )
    return Table(["changes", "validation loss", "spread of seeds", f"lower than {base}"], rows)
