"""Smooth noisy curves without lag, and thin long ones."""

import math
from collections.abc import Sequence

import numpy as np

SHARE = 30
"""The window on each side of a step is this part of the run."""
PLACES = 500
"""Most places of a drawn curve."""


def places_of(count: int) -> list[int]:
    """Return at most ``PLACES`` indices below ``count``, evenly spaced, with the first and last."""
    if count <= PLACES:
        return list(range(count))
    return [round(place * (count - 1) / (PLACES - 1)) for place in range(PLACES)]


def smoothed(values: Sequence[float], places: Sequence[int]) -> list[float]:
    """Return the curve at the places: the least-squares line through a window around each of them.

    The window reaches ``len(values) // SHARE`` steps to each side. Within the run this is the mean
    of the window. Near the ends the window keeps its width and lies within the run, and the line
    keeps the curve from lagging. Values that are not finite are left out.
    """
    half, found = len(values) // SHARE, []
    all_values = np.asarray(values, dtype=np.float64)
    for place in places:
        start = max(0, min(place - half, len(values) - 1 - 2 * half))
        window = all_values[start : start + 2 * half + 1]
        offsets = np.arange(start - place, start - place + len(window), dtype=np.float64)
        finite = np.isfinite(window)
        found.append(_line_at_zero(offsets[finite], window[finite]))
    return found


def extremes(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """Thin a long curve to the smallest and the largest value of each of ``PLACES`` pieces."""
    if len(x) <= 2 * PLACES:
        return list(x), list(y)
    kept: list[int] = []
    for piece in np.array_split(np.arange(len(x)), PLACES):
        finite = [int(index) for index in piece if math.isfinite(y[index])]
        if finite:
            ends = {min(finite, key=y.__getitem__), max(finite, key=y.__getitem__)}
            kept += sorted(ends)
    return [x[index] for index in kept], [y[index] for index in kept]


def _line_at_zero(offsets: np.ndarray, values: np.ndarray) -> float:
    """Return the value at offset 0 of the line through the points; their mean if that has no
    slope."""
    if not len(values):
        return math.nan
    centred = offsets - offsets.mean()
    spread = float(centred @ centred)
    slope = float(centred @ values) / spread if spread else 0.0
    return float(values.mean()) - slope * float(offsets.mean())
