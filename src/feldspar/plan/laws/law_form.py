"""One form of a law fitted to points: its curve, residuals, and intervals from their bootstrap."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from feldspar.core.errors import UserError
from feldspar.core.streams import numpy_stream
from feldspar.plan.laws.law import Point, PowerLaw
from feldspar.plan.laws.law_solver import LEAST_SLOPE, Curves, fit_curves

Form = Literal["power", "power_plus_constant"]
PARAMETERS: dict[Form, int] = {"power": 2, "power_plus_constant": 3}

DRAWS = 1000
LEVEL = 0.95
LARGEST_LOG = 700.0
"""The logarithm of the largest double."""


@dataclass(frozen=True)
class FormFit:
    """One form of a law, fitted to points of rising FLOPs."""

    form: Form
    points: tuple[Point, ...]
    huber: float | None = None

    @cached_property
    def curve(self) -> PowerLaw:
        """The fitted curve."""
        exponent, level = float(self._curves.exponent[0]), float(self._curves.level[0])
        scale = math.exp(self._centre + level / exponent)
        return PowerLaw(exponent, scale, float(self._curves.constant[0]))

    @property
    def is_flat(self) -> bool:
        """True if the losses do not fall, or so slowly that scale_flops exceeds the
        largest double.
        """
        exponent, level = float(self._curves.exponent[0]), float(self._curves.level[0])
        return exponent <= 2 * LEAST_SLOPE or abs(self._centre + level / exponent) > LARGEST_LOG

    @cached_property
    def residuals(self) -> np.ndarray:
        """log observed - log predicted of each point."""
        return self._log_losses - np.log(self._curves.losses(self._x)[0])

    @property
    def residual_std(self) -> float:
        """Root of the mean squared residual of log L."""
        return float(np.sqrt(np.mean(self.residuals**2)))

    @property
    def noise_std(self) -> float | None:
        """The same per degree of freedom, an estimate of a run's noise. None without freedom."""
        freedom = len(self.points) - PARAMETERS[self.form]
        if freedom <= 0:
            return None
        return self.residual_std * math.sqrt(len(self.points) / freedom)

    def predict(self, flops: float) -> float:
        """Return the loss at ``flops``. Raises UserError unless ``flops`` is positive."""
        return float(self._curves.losses(self._place(flops))[0, 0])

    def interval(self, flops: float, *, new_run: bool = True) -> tuple[float, float] | None:
        """Return the 95 % interval of the loss at ``flops``; None where no residual can be drawn.

        With ``new_run`` the interval includes the noise of a single run; without, it is that of the
        curve. Raises UserError unless ``flops`` is positive.
        """
        place = self._place(flops)
        if self.noise_std is None:
            return None
        curves, noise = self._bootstrap
        losses = curves.losses(place)[:, 0]
        if new_run:
            losses = losses * np.exp(noise)
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(losses, [tail, 1 - tail])
        return float(low), float(high)

    def extrapolation(self, flops: float) -> float:
        """Return ``flops`` as a multiple of the most FLOPs that were fitted."""
        return flops / self.points[-1].flops

    @cached_property
    def _centre(self) -> float:
        return float(np.mean(np.log([point.flops for point in self.points])))

    @cached_property
    def _x(self) -> np.ndarray:
        return np.log([point.flops for point in self.points]) - self._centre

    @cached_property
    def _log_losses(self) -> np.ndarray:
        return np.log([point.loss for point in self.points])

    @cached_property
    def _curves(self) -> Curves:
        return self._fit(self._log_losses[None, :])

    def _fit(self, log_losses: np.ndarray) -> Curves:
        constant = self.form == "power_plus_constant"
        return fit_curves(self._x, log_losses, with_constant=constant, huber=self.huber)

    def _place(self, flops: float) -> np.ndarray:
        if not (flops > 0 and math.isfinite(flops)):
            raise UserError("flops: must be positive", found=flops)
        return np.array([math.log(flops) - self._centre])

    @cached_property
    def _bootstrap(self) -> tuple[Curves, np.ndarray]:
        """Curves fitted to redrawn residuals, and for each curve the noise of one more run."""
        count = len(self.points)
        scale = math.sqrt(count / (count - PARAMETERS[self.form]))
        pool = (self.residuals - self.residuals.mean()) * scale
        stream = numpy_stream(0, "scaling law", "bootstrap", self.form)
        picks = stream.integers(count, size=(DRAWS, count + 1))
        fitted = np.log(self._curves.losses(self._x)[0])
        return self._fit(fitted + pool[picks[:, :count]]), pool[picks[:, count]]
