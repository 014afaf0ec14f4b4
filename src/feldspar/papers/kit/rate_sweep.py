"""Loss over learning rate, for some variants of a model under some parametrizations.

A variant is a number: a density, or a count of parameters. One of them is the base, where rates
were tuned; the questions are how far the best rate of the others lies from it, and what it costs to
keep the base's.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cell:
    """One rate of one variant, and its loss with each seed; infinite where a run diverged."""

    parametrization: str
    variant: float
    rate: float
    losses: tuple[float, ...]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Cell":
        """Read a recorded cell; its mean loss is computed again."""
        rate, losses = values["rate"], tuple(values["losses"])
        return cls(values["parametrization"], values["variant"], rate, losses)

    @property
    def loss(self) -> float:
        """The mean over seeds."""
        return sum(self.losses) / len(self.losses)

    @property
    def relative_std(self) -> float | None:
        """Sample standard deviation over seeds as a share of the loss; None for one seed."""
        if len(self.losses) < 2 or not math.isfinite(self.loss):
            return None
        squares = sum((loss - self.loss) ** 2 for loss in self.losses)
        return math.sqrt(squares / (len(self.losses) - 1)) / self.loss


@dataclass(frozen=True)
class RateSweep:
    """The cells of a sweep, and the variant where rates were tuned."""

    cells: tuple[Cell, ...]
    base: float

    @property
    def variants(self) -> list[float]:
        """The variants from the largest to the smallest."""
        return sorted({cell.variant for cell in self.cells}, reverse=True)

    def row(self, parametrization: str, variant: float) -> list[Cell]:
        """Return the cells of one variant by rising rate."""
        wanted = (parametrization, variant)
        found = [cell for cell in self.cells if (cell.parametrization, cell.variant) == wanted]
        return sorted(found, key=lambda cell: cell.rate)

    def best(self, parametrization: str, variant: float) -> Cell:
        """Return the cell of the lowest loss."""
        return min(self.row(parametrization, variant), key=lambda cell: cell.loss)

    def loss_cells(self, parametrization: str, variant: float, digits: int) -> list[str]:
        """Return the losses of one curve as cells of a table.

        The best one is marked *; a run that diverged has none.
        """
        best = self.best(parametrization, variant)
        return [
            f"{cell.loss:.{digits}f}{'*' if cell is best else ''}"
            if math.isfinite(cell.loss)
            else "-"
            for cell in self.row(parametrization, variant)
        ]

    def untuned(self, parametrization: str, variant: float) -> Cell:
        """Return the cell at the base's best rate."""
        rate = self.best(parametrization, self.base).rate
        return next(cell for cell in self.row(parametrization, variant) if cell.rate == rate)

    def shift(self, parametrization: str, variant: float) -> float:
        """Return the octaves from the base's best rate to the variant's."""
        best = self.best(parametrization, variant).rate
        return math.log2(best / self.best(parametrization, self.base).rate)

    def is_edge(self, parametrization: str, variant: float) -> bool:
        """Return True if the best rate is the least or the largest that was tried."""
        row = self.row(parametrization, variant)
        return self.best(parametrization, variant) in (row[0], row[-1])


def pooled_std(stds: Iterable[float | None]) -> float | None:
    """Return the root of the mean square of the known values, or None."""
    known = [std for std in stds if std is not None]
    return math.sqrt(sum(std**2 for std in known) / len(known)) if known else None


def octaves(shift: float, is_edge: bool = False) -> str:
    """Word a shift: ``+4 octaves``, ``at least +6 octaves (edge of the grid)``."""
    words = f"{shift:+g} octave" + ("" if abs(shift) == 1 else "s")
    return f"at least {words} (edge of the grid)" if is_edge and shift else words


def percent(ratio: float, digits: int = 1) -> str:
    """Word a ratio as a difference in percent, ``+1.2 %``; a run that diverged has none."""
    return f"{100 * (ratio - 1):+.{digits}f} %" if math.isfinite(ratio) else "diverged"
