"""Fit a law of loss to runs in two forms, and judge each form on the largest run.

The largest run is left out of the fits that are judged. The forms are a pure power law and one with
a constant. The form that comes closer on the held-out sizes is chosen, and is fitted again to all
points to predict beyond them. Intervals come from a bootstrap of the residuals of log L.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from feldspar.core.errors import UserError
from feldspar.plan.laws.law import Basis, Point
from feldspar.plan.laws.law_form import Form, FormFit
from feldspar.plan.laws.law_points import clean_points

FORMS: tuple[Form, ...] = ("power", "power_plus_constant")

LEAST_POINTS = 3
POINTS_FOR_A_CONSTANT = 4
LEAST_DECADES = 1.5
ROUGH_POINTS = 8
FAR = 10.0
"""Intervals are not calibrated beyond this multiple of the most FLOPs of a fit."""


@dataclass(frozen=True)
class HeldOut:
    """A size that was left out of the fit, with its prediction."""

    flops: float
    observed: float
    predicted: float
    interval: tuple[float, float] | None
    extrapolation: float

    @property
    def error(self) -> float:
        """The relative error, predicted / observed - 1."""
        return self.predicted / self.observed - 1

    @property
    def inside(self) -> bool | None:
        """True if the interval holds the observed loss. None without an interval."""
        return (
            None if self.interval is None else self.interval[0] <= self.observed <= self.interval[1]
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
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
    """A fitted law. ``predict`` and ``interval`` use all points, ``held_out`` the others."""

    form: Form
    points: tuple[Point, ...]
    judged: dict[Form, FormFit]
    """Each form fitted without the held-out sizes. The form with a constant may be absent."""
    fitted: dict[Form, FormFit]
    """Each form fitted to all points."""
    held_out_sizes: int
    huber: float | None
    basis: Basis | None
    warnings: tuple[str, ...]

    @property
    def final(self) -> FormFit:
        """The chosen form, fitted to all points."""
        return self.fitted[self.form]

    @property
    def held_out(self) -> HeldOut:
        """The prediction of the largest size by the chosen form, which was fitted without it."""
        return self.judgement(self.form)[-1]

    def judgement(self, form: Form) -> tuple[HeldOut, ...]:
        """Return the held-out sizes with predictions of ``form``, smallest first."""
        return judge(self.judged[form], self.points[-self.held_out_sizes :])

    def predict(self, flops: float) -> float:
        """Return the loss at ``flops`` by the fit to all points.

        Raises UserError unless ``flops`` is positive.
        """
        return self.final.predict(flops)

    def interval(self, flops: float, *, new_run: bool = True) -> tuple[float, float] | None:
        """Return the interval of 95 % of new runs or, without ``new_run``, of fitted curves."""
        return self.final.interval(flops, new_run=new_run)


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
    check_sizes([point.flops for point in cleaned], held_out)
    if huber is not None and not huber > 0:
        raise UserError("huber: must be positive", found=huber)
    seen = cleaned[: len(cleaned) - held_out]
    judged = {form: FormFit(form, seen, huber) for form in admissible(seen)}
    fitted = {form: FormFit(form, cleaned, huber) for form in admissible(cleaned)}
    for fit in (*judged.values(), *fitted.values()):
        if fit.is_flat:
            raise UserError(
                "the losses do not fall as FLOPs rise: there is no law to fit",
                found=", ".join(f"{point.loss:.4g}" for point in fit.points),
                do="tune each size; the usual cause is a learning rate that is too high",
            )
    errors = {form: _misjudged(fit, cleaned[-held_out:]) for form, fit in judged.items()}
    # Both are one curve when the best constant is 0: then the one with fewer parameters.
    chosen: Form = "power"
    if "power_plus_constant" in errors and errors["power_plus_constant"] < errors["power"] - 1e-6:
        chosen = "power_plus_constant"
    doubts = (*warnings, *_doubts(judged, seen))
    return LawFit(chosen, cleaned, judged, fitted, held_out, huber, basis, doubts)


def judge(fit: FormFit, sizes: Sequence[Point]) -> tuple[HeldOut, ...]:
    """Predict sizes that ``fit`` has not seen."""
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


def decades(flops: Iterable[float]) -> float:
    """Return the powers of ten between the least and the most FLOPs."""
    logs = [math.log10(value) for value in flops]
    return max(logs) - min(logs)


def admissible(points: Sequence[Point]) -> tuple[Form, ...]:
    """Return the forms that can be fitted to the points."""
    wide = decades(point.flops for point in points) >= LEAST_DECADES
    return FORMS if wide and len(points) >= POINTS_FOR_A_CONSTANT else FORMS[:1]


def check_sizes(flops: Iterable[float], held_out: int) -> None:
    """Raise UserError where sizes of these FLOPs are too few or too close for a law.

    ``held_out`` of the sizes are held out. Losses are not needed, so that a family is checked
    before training.
    """
    sizes = set(flops)
    if len(sizes) < LEAST_POINTS:
        raise UserError(
            f"{len(sizes)} sizes are too few for a law",
            allowed="3 for a pure power law, 4 over 1.5 decades of FLOPs for one with a constant",
        )
    if len(sizes) >= POINTS_FOR_A_CONSTANT and decades(sizes) < LEAST_DECADES:
        raise UserError(
            f"the sizes span {decades(sizes):.2f} decades of FLOPs, too few for a law",
            allowed=f"at least {LEAST_DECADES}",
            do="add smaller or larger sizes",
        )
    if not 1 <= held_out <= len(sizes) - 2:
        raise UserError(
            f"held_out: {held_out} of {len(sizes)} sizes; the largest judges the law, "
            "and a fit needs two others",
            allowed=f"1 to {len(sizes) - 2}",
        )


def _misjudged(fit: FormFit, sizes: Sequence[Point]) -> float:
    """Return the mean absolute error of log L."""
    errors = [abs(math.log(fit.predict(size.flops) / size.loss)) for size in sizes]
    return sum(errors) / len(errors)


def _doubts(judged: dict[Form, FormFit], seen: Sequence[Point]) -> list[str]:
    said = []
    if "power_plus_constant" not in judged:
        span = decades(point.flops for point in seen)
        said.append(
            f"only the pure power law was judged: {len(seen)} sizes over {span:.2f} decades below "
            f"the held-out one; a constant needs {POINTS_FOR_A_CONSTANT} over {LEAST_DECADES}"
        )
    if judged["power"].noise_std is None:
        said.append("a line fits two sizes exactly, so the held-out size has no interval")
    return said
