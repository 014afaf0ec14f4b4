"""Measure, during training, the factor from the norm layers' noise scale to the model's.

2411.00999 reports total = 1.4 x norm layers in one setting. The factor depends on model, data and
progress, so it is measured. It is an unbiased estimate of all parameters (with micro-batches or
processes as groups) divided by that of the norm layers, averaged over a long time. With little
evidence it stays near the paper's value. After a run, a regression of one noise scale on the other
gives the same factor.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from feldspar.core.errors import UserError
from feldspar.noise_scale.control.meter import NoiseScaleMeter
from feldspar.noise_scale.control.statistics import StepStatistics
from feldspar.recipe.sections.noise_scale import PAPER_FACTOR

HALF_LIVES = 10.0
"""The factor's half-life, in half-lives of the noise scale; it moves more slowly."""


class Calibration:
    """``factor`` with total noise scale = factor x that of the norm layers.

    ``prior_steps`` is the weight of the paper's value, in steps of evidence. Raises UserError
    unless it and the half-life are positive.
    """

    def __init__(
        self, half_life_tokens: float, prior: float = PAPER_FACTOR, prior_steps: float = 50.0
    ) -> None:
        if not (prior > 0 and prior_steps > 0):
            raise UserError(
                "the calibration's prior must be positive",
                found=f"prior={prior}, prior_steps={prior_steps}",
            )
        self._norm = NoiseScaleMeter(HALF_LIVES * half_life_tokens)
        self._total = NoiseScaleMeter(HALF_LIVES * half_life_tokens)
        self._prior = prior
        self._prior_steps = prior_steps

    def update(
        self, norm: StepStatistics | None, total: StepStatistics | None, tokens: float
    ) -> None:
        """Take a step: statistics with ``norm``, and statistics with ``total``."""
        both = norm is not None and total is not None and norm.finite and total.finite
        self._norm.update(norm if both else None, tokens)
        self._total.update(total if both else None, tokens)

    @property
    def measured(self) -> float:
        """Measured factor; NaN while a noise scale is undetermined."""
        return self._total.estimate("total").value / self._norm.estimate("norm").value

    @property
    def factor(self) -> float:
        """Factor to use: a mean of logarithms, weighted by steps of evidence."""
        measured = self.measured
        if not (measured > 0 and math.isfinite(measured)):
            return self._prior
        steps = self._norm.estimate("norm").effective_steps
        logarithm = self._prior_steps * math.log(self._prior) + steps * math.log(measured)
        return math.exp(logarithm / (self._prior_steps + steps))

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint, as JSON."""
        return {"norm": self._norm.state(), "total": self._total.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._norm.load_state(state["norm"])
        self._total.load_state(state["total"])


@dataclass(frozen=True)
class Regression:
    """y = slope x through the origin, and Pearson's correlation."""

    slope: float
    correlation: float


def regress_through_origin(x: Sequence[float], y: Sequence[float]) -> Regression:
    """Fit y = slope x to paired noise scales; pairs that are not finite are left out.

    Noise scales have the trend of training in common, which increases the correlation. Raises
    UserError for fewer than three pairs.
    """
    pairs = np.array([x, y], dtype=np.float64)
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    if pairs.shape[1] < 3:
        raise UserError("a regression needs at least three finite pairs", found=pairs.shape[1])
    slope = float((pairs[0] * pairs[1]).sum() / (pairs[0] ** 2).sum())
    return Regression(slope, float(np.corrcoef(pairs)[0, 1]))
