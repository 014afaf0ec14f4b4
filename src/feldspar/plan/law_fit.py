"""A law of loss fitted to runs: two forms, each judged on the largest run, which it did not see.

The form, a pure power law or one with a constant, is the one that came closer on the held-out
sizes; it is then fitted anew to all points to predict beyond them. Intervals come from a bootstrap
of the residuals of log L.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from feldspar.core.errors import UserError
from feldspar.core.streams import numpy_stream
from feldspar.plan.law import Basis, ComputeLaw, Point, PowerLaw
from feldspar.plan.law_points import clean_points
from feldspar.plan.law_solver import LEAST_EXPONENT, Curves, fit_curves

Form = Literal["power", "power_plus_constant"]
FORMS: tuple[Form, ...] = ("power", "power_plus_constant")
PARAMETERS: dict[Form, int] = {"power": 2, "power_plus_constant": 3}

LEAST_POINTS = 3
POINTS_FOR_A_CONSTANT = 4
LEAST_DECADES = 1.5
ROUGH_POINTS = 8
FAR = 10.0
"""Times the most FLOPs of a fit beyond which its intervals are not calibrated."""
DRAWS = 1000
LARGEST_LOG = 700.0
"""Of a double."""
LEVEL = 0.95


@dataclass(frozen=True)
class FormFit:
    """One form fitted to some points, which rise in FLOPs."""

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
        """Whether the losses do not fall, or so little that scale_flops is beyond all numbers."""
        exponent, level = float(self._curves.exponent[0]), float(self._curves.level[0])
        return exponent <= 2 * LEAST_EXPONENT or abs(self._centre + level / exponent) > LARGEST_LOG

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
        """The same per degree of freedom, an estimate of a run's noise; None without one."""
        freedom = len(self.points) - PARAMETERS[self.form]
        if freedom <= 0:
            return None
        return self.residual_std * math.sqrt(len(self.points) / freedom)

    def predict(self, flops: float) -> float:
        """The loss at ``flops``. Raises UserError unless they are above 0."""
        return float(self._curves.losses(self._place(flops))[0, 0])

    def interval(self, flops: float, *, new_run: bool = True) -> tuple[float, float] | None:
        """Where the loss at ``flops`` is expected in 95 % of cases; None with no residual to draw.

        With ``new_run`` the noise of a single run is added, without it the interval is that of the
        curve. Raises UserError unless ``flops`` is above 0.
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
        """``flops`` as a multiple of the most FLOPs that were fitted."""
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
            raise UserError("flops: a law has a value at FLOPs above 0 only", found=flops)
        return np.array([math.log(flops) - self._centre])

    @cached_property
    def _bootstrap(self) -> tuple[Curves, np.ndarray]:
        """Curves of redrawn residuals, and for each the noise of one more run."""
        count = len(self.points)
        scale = math.sqrt(count / (count - PARAMETERS[self.form]))
        pool = (self.residuals - self.residuals.mean()) * scale
        stream = numpy_stream(0, "scaling law", "bootstrap", self.form)
        picks = stream.integers(count, size=(DRAWS, count + 1))
        fitted = np.log(self._curves.losses(self._x)[0])
        return self._fit(fitted + pool[picks[:, :count]]), pool[picks[:, count]]


@dataclass(frozen=True)
class HeldOut:
    """A size that the fit has not seen, and what the fit said of it."""

    flops: float
    observed: float
    predicted: float
    interval: tuple[float, float] | None
    extrapolation: float

    @property
    def error(self) -> float:
        """predicted / observed - 1."""
        return self.predicted / self.observed - 1

    @property
    def inside(self) -> bool | None:
        """Whether the interval holds the observed loss; None without an interval."""
        return (
            None if self.interval is None else self.interval[0] <= self.observed <= self.interval[1]
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "flops": self.flops,
            "observed": self.observed,
            "predicted": self.predicted,
            "error_percent": 100 * self.error,
            "interval": None if self.interval is None else list(self.interval),
            "inside_interval": self.inside,
            "extrapolation": self.extrapolation,
        }


@dataclass(frozen=True)
class LawFit:
    """A fitted law: ``predict`` and ``interval`` go by all points, ``held_out`` by the others."""

    form: Form
    points: tuple[Point, ...]
    judged: dict[Form, FormFit]
    """Each form fitted without the held-out sizes; the form with a constant where it could be."""
    fitted: dict[Form, FormFit]
    """Each form fitted to all points."""
    held_out_sizes: int
    basis: Basis | None
    warnings: tuple[str, ...] = field(default=())

    @property
    def final(self) -> FormFit:
        """The chosen form, fitted to all points."""
        return self.fitted[self.form]

    @property
    def held_out(self) -> HeldOut:
        """The largest size under the chosen form, which was fitted without it."""
        return self.judgement(self.form)[-1]

    def judgement(self, form: Form) -> tuple[HeldOut, ...]:
        """The held-out sizes, smallest first, under ``form``."""
        return judge(self.judged[form], self.points[-self.held_out_sizes :])

    def predict(self, flops: float) -> float:
        """The loss at ``flops`` by the fit to all points. Raises UserError unless above 0."""
        return self.final.predict(flops)

    def interval(self, flops: float, *, new_run: bool = True) -> tuple[float, float] | None:
        """Where 95 % of new runs (or, without ``new_run``, of curves) are expected."""
        return self.final.interval(flops, new_run=new_run)

    def law(self, name: str, basis: Basis) -> ComputeLaw:
        """The law under a name, bound to its basis."""
        noise = self.final.noise_std
        assert noise is not None, "a law has more points than parameters"
        return ComputeLaw(
            name=name,
            curve=self.final.curve,
            basis=basis,
            relative_std=noise,
            fitted_flops=(self.points[0].flops, self.points[-1].flops),
            source=f"fitted to {len(self.points)} sizes",
        )


def fit_law(
    points: Iterable[Point],
    *,
    held_out: int = 1,
    huber: float | None = None,
    basis: Basis | None = None,
) -> LawFit:
    """Fit L(f) to ``points`` (FLOPs and loss, in any order).

    ``held_out`` largest sizes judge the forms and are in no fit that is judged. The form with a
    constant needs 4 points over 1.5 decades; with less in the fit that is judged only the pure
    power law is. ``huber``: residuals of log L above it count by their size. Raises UserError for
    fewer than 3 points, more than 3 over less than 1.5 decades, FLOPs or losses not above 0, and
    losses that do not fall.
    """
    cleaned, warnings = clean_points(points)
    _check(cleaned, held_out, huber)
    seen = cleaned[: len(cleaned) - held_out]
    judged = {form: FormFit(form, seen, huber) for form in admissible(seen)}
    fitted = {form: FormFit(form, cleaned, huber) for form in admissible(cleaned)}
    for fit in (*judged.values(), *fitted.values()):
        if fit.is_flat:
            raise UserError(
                "the losses do not fall as FLOPs rise: there is no law to fit",
                found=", ".join(f"{point.loss:.4g}" for point in fit.points),
                do="train each size to its best: too high a learning rate is the usual cause",
            )
    errors = {form: _misjudged(fit, cleaned[-held_out:]) for form, fit in judged.items()}
    # Both are one curve when the best constant is 0: then the one with fewer parameters.
    chosen: Form = "power"
    if "power_plus_constant" in errors and errors["power_plus_constant"] < errors["power"] - 1e-6:
        chosen = "power_plus_constant"
    return LawFit(
        chosen, cleaned, judged, fitted, held_out, basis, (*warnings, *_doubts(judged, seen))
    )


def judge(fit: FormFit, sizes: Sequence[Point]) -> tuple[HeldOut, ...]:
    """What ``fit`` says of sizes that it has not seen."""
    return tuple(
        HeldOut(
            flops=size.flops,
            observed=size.loss,
            predicted=fit.predict(size.flops),
            interval=fit.interval(size.flops),
            extrapolation=fit.extrapolation(size.flops),
        )
        for size in sizes
    )


def decades(points: Sequence[Point]) -> float:
    """Powers of ten between the least and the most FLOPs of sorted points."""
    return math.log10(points[-1].flops / points[0].flops)


def admissible(points: Sequence[Point]) -> tuple[Form, ...]:
    """The forms that sorted points can carry."""
    enough = len(points) >= POINTS_FOR_A_CONSTANT and decades(points) >= LEAST_DECADES
    return FORMS if enough else FORMS[:1]


def _check(points: tuple[Point, ...], held_out: int, huber: float | None) -> None:
    if len(points) < LEAST_POINTS:
        raise UserError(
            f"{len(points)} points are too few for a law",
            allowed="3 for a pure power law, 4 over 1.5 decades of FLOPs for one with a constant",
        )
    if len(points) >= POINTS_FOR_A_CONSTANT and decades(points) < LEAST_DECADES:
        raise UserError(
            f"the points span {decades(points):.2f} decades of FLOPs, too few for a law",
            allowed=f"at least {LEAST_DECADES}",
            do="add smaller or larger sizes",
        )
    if not 1 <= held_out <= len(points) - 2:
        raise UserError(
            f"held_out: {held_out} of {len(points)} sizes; the largest judges the law, "
            "and a fit needs two others",
            allowed=f"1 to {len(points) - 2}",
        )
    if huber is not None and not huber > 0:
        raise UserError("huber: the threshold is above 0", found=huber)


def _misjudged(fit: FormFit, sizes: Sequence[Point]) -> float:
    """Mean size of the error of log L."""
    errors = [abs(math.log(fit.predict(size.flops) / size.loss)) for size in sizes]
    return sum(errors) / len(errors)


def _doubts(judged: dict[Form, FormFit], seen: Sequence[Point]) -> list[str]:
    said = []
    if "power_plus_constant" not in judged:
        said.append(
            f"only the pure power law was judged: {len(seen)} sizes over {decades(seen):.2f} "
            f"decades below the held-out one; a constant needs {POINTS_FOR_A_CONSTANT} over "
            f"{LEAST_DECADES}"
        )
    if judged["power"].noise_std is None:
        said.append("two sizes fix a line exactly: the held-out size has no interval")
    return said
