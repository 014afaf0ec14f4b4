"""Define the measures of a coordinate check and the bounds for passing it; loads no torch.

The mean size of activations in the first steps is measured at several widths, densities or depths.
A parametrization is stable along an axis if the slope of log2 size over log2 of the axis stays near
zero (2203.03466, appendix D.1; 2405.15743, figure 5; 2505.01618 for depth).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from feldspar.recipe.sections.parametrization import ParametrizationSettings

Axis = Literal["width", "density", "depth"]
Kind = Literal["size", "change"]

AXES: tuple[Axis, ...] = ("width", "density", "depth")
STEPS = (0, 1, 5, 10)
"""Numbers of updates after which the probe batch is measured. Mistakes in initial values show only
at 0 and 1, mistakes in learning rates from 1 on."""
ATTENTION_LOGITS = "attention_logits"
ATTENTION_OUTPUT = "attention_output"
FEED_FORWARD_OUTPUT = "feed_forward_output"
RESIDUAL_STREAM = "residual_stream"
LOGITS = "logits"
QUANTITIES = (ATTENTION_LOGITS, ATTENTION_OUTPUT, FEED_FORWARD_OUTPUT, RESIDUAL_STREAM, LOGITS)

INITIAL_BOUND = 0.10
TRAINED_BOUND = 0.25
DEPTH_BOUND = 0.35
LOGITS_SLOPE = (-0.60, -0.40)
"""Bounds of the slope of the logits. A random head that is tied, or of the same size, makes the
first logits smaller by the square root of the width multiplier; after a few steps they are flat.
Without its multiplier the slope is +0.5."""
ATTENTION_SLOPE = (-1.01, -0.99)
CLEAR_GROWTH = 0.6


class Measure(NamedTuple):
    """Mean |x| of a quantity, or mean |x - x at step 0|, after a number of updates."""

    quantity: str
    kind: Kind
    step: int

    def __str__(self) -> str:
        change = " change" if self.kind == "change" else ""
        return f"{self.quantity.replace('_', ' ')}{change} at step {self.step}"


ATTENTION_MULTIPLIER = Measure("attention_multiplier", "size", 0)
"""The factor of q.k, with its slope over head_dim. Activations of models with one head_dim cannot
show an error in it."""


@dataclass(frozen=True)
class Bound:
    """Interval that the slope of a measure must be in."""

    measure: Measure
    low: float
    high: float

    @property
    def interval(self) -> str:
        """The interval as text."""
        return f"{self.low:.2f} to {self.high:.2f}"

    def holds(self, slopes: Mapping[Measure, float]) -> bool:
        """Tell whether the slope is in the interval; a slope that is not finite never is."""
        value = slopes[self.measure]
        return math.isfinite(value) and self.low <= value <= self.high


def slope(x: Sequence[float], sizes: Sequence[Sequence[float]]) -> float:
    """Return the least-squares slope of mean log2 size over log2 ``x``; ``sizes`` are (points,
    seeds).

    NaN if a size is zero or not finite, because a run that diverged has no slope.
    """
    if any(not (0 < size < math.inf) for seeds in sizes for size in seeds):
        return math.nan
    across = [math.log2(value) for value in x]
    up = [sum(map(math.log2, seeds)) / len(seeds) for seeds in sizes]
    middle, height = sum(across) / len(across), sum(up) / len(up)
    spread = sum((value - middle) ** 2 for value in across)
    together = sum((a - middle) * (b - height) for a, b in zip(across, up, strict=True))
    return together / spread


def bounds(axis: Axis, settings: ParametrizationSettings) -> tuple[Bound, ...]:
    """Return the bounds of a parametrization that is stable along ``axis``."""
    if axis == "depth":
        return tuple(
            _around_zero(RESIDUAL_STREAM, "change", step, DEPTH_BOUND) for step in STEPS if step > 1
        )
    found = [_around_zero(FEED_FORWARD_OUTPUT, "size", 0, INITIAL_BOUND)]
    for step in STEPS[1:]:
        found += [
            _around_zero(FEED_FORWARD_OUTPUT, "size", step, TRAINED_BOUND),
            _around_zero(FEED_FORWARD_OUTPUT, "change", step, TRAINED_BOUND),
            _around_zero(RESIDUAL_STREAM, "change", step, TRAINED_BOUND),
        ]
    # The final norm hides density from the logits; sp promises neither.
    if axis == "width" and settings.type != "sp":
        found += [
            Bound(Measure(LOGITS, "size", 0), *LOGITS_SLOPE),
            Bound(ATTENTION_MULTIPLIER, *ATTENTION_SLOPE),
        ]
    return tuple(found)


def clear_growth(axis: Axis) -> tuple[Bound, ...]:
    """Return bounds that a parametrization which is clearly unstable along ``axis`` exceeds."""
    if axis == "depth":
        measures = [Measure(RESIDUAL_STREAM, "change", step) for step in STEPS if step > 1]
    else:
        measures = [Measure(FEED_FORWARD_OUTPUT, "size", STEPS[-1])]
    return tuple(Bound(measure, CLEAR_GROWTH, math.inf) for measure in measures)


def claimed_axes(settings: ParametrizationSettings) -> tuple[Axis, ...]:
    """Return the axes along which a parametrization promises activations of constant size."""
    claims: dict[Axis, bool] = {
        "width": settings.type != "sp",
        "density": settings.type == "supar",
        "depth": settings.depth_power is not None,
    }
    return tuple(axis for axis in AXES if claims[axis])


def _around_zero(quantity: str, kind: Kind, step: int, bound: float) -> Bound:
    return Bound(Measure(quantity, kind, step), -bound, bound)
