"""A fitted law as plain values: the forms, the held-out size, predictions, and warnings."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from feldspar.plan.laws.law_fit import FAR, FORMS, ROUGH_POINTS, LawFit, decades
from feldspar.plan.laws.law_form import DRAWS, LEVEL, Form, FormFit

CURVE_SAMPLES = 41
CHOSEN_BY = "the error on the held-out sizes, which no judged fit has seen"
PREDICTED_BY = "the chosen form fitted to all points"


def law_record(fit: LawFit, flops: Sequence[float] = ()) -> dict[str, Any]:
    """Return the fit and its predictions at ``flops``.

    Raises UserError unless all of ``flops`` are positive.
    """
    predictions = [_prediction(fit, value) for value in flops]
    return {
        "form": fit.form,
        "chosen_by": CHOSEN_BY,
        "parameters": asdict(fit.final.curve),
        "residual_std": fit.final.residual_std,
        "noise_std": fit.final.noise_std,
        "held_out": _held_out(fit, fit.form),
        "predictions": predictions,
        "predicted_by": PREDICTED_BY,
        "forms": {form: _form(fit, form) if form in fit.fitted else None for form in FORMS},
        "disagreement_percent": _disagreement(fit.judged, fit.held_out.flops),
        "intervals": {"level": LEVEL, "draws": DRAWS, "rough": _is_rough(fit)},
        "decades": decades(point.flops for point in fit.points),
        "points": [point._asdict() for point in fit.points],
        "held_out_sizes": fit.held_out_sizes,
        "huber": fit.huber,
        "basis": None if fit.basis is None else asdict(fit.basis),
        "warnings": [*fit.warnings, *_warnings(fit, flops)],
        "curve": _samples(fit, flops),
    }


def _held_out(fit: LawFit, form: Form) -> dict[str, Any]:
    *others, largest = fit.judgement(form)
    record = largest.as_dict() | {"fitted_points": len(fit.judged[form].points)}
    if others:
        record["others"] = [item.as_dict() for item in others]
    return record


def _form(fit: LawFit, form: Form) -> dict[str, Any]:
    fitted = fit.fitted[form]
    return {
        "parameters": asdict(fitted.curve),
        "residual_std": fitted.residual_std,
        "held_out": _held_out(fit, form) if form in fit.judged else None,
    }


def _prediction(fit: LawFit, flops: float) -> dict[str, Any]:
    interval = fit.interval(flops)
    extrapolation = fit.final.extrapolation(flops)
    return {
        "flops": flops,
        "loss": fit.predict(flops),
        "interval": None if interval is None else list(interval),
        "extrapolation": extrapolation,
        "calibrated": extrapolation <= FAR,
        "disagreement_percent": _disagreement(fit.fitted, flops),
    }


def _disagreement(fits: dict[Form, FormFit], flops: float) -> float | None:
    """Return the excess of the form with a constant over the pure power law, in percent."""
    if len(fits) < len(FORMS):
        return None
    return 100 * (fits["power_plus_constant"].predict(flops) / fits["power"].predict(flops) - 1)


def _is_rough(fit: LawFit) -> bool:
    return len(fit.points) <= ROUGH_POINTS


def _warnings(fit: LawFit, flops: Sequence[float]) -> list[str]:
    said = []
    if _is_rough(fit):
        said.append(f"intervals from {len(fit.points)} points are rough")
    judged = fit.judged[fit.form]
    far = [(judged, fit.held_out.flops), *((fit.final, value) for value in flops)]
    for used, value in far:
        factor = used.extrapolation(value)
        if factor > FAR:
            said.append(
                f"{value:.4g} FLOPs are {factor:.3g} times the most that were fitted: beyond "
                f"{FAR:g} the interval is not calibrated"
            )
    return said


def _samples(fit: LawFit, flops: Sequence[float]) -> list[dict[str, Any]]:
    """Return the curves of the chosen form over all FLOPs of interest.

    One curve is fitted to all points, the other without the held-out sizes.
    """
    ends = [fit.points[0].flops, fit.points[-1].flops, *flops]
    judged = fit.judged[fit.form]
    samples = []
    for value in np.geomspace(min(ends), max(ends), CURVE_SAMPLES):
        place = float(value)
        interval = fit.interval(place)
        samples.append(
            {
                "flops": place,
                "loss": fit.predict(place),
                "interval": None if interval is None else list(interval),
                "judged": judged.predict(place),
            }
        )
    return samples
