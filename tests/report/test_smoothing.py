"""Smoothed curves follow their definition, and do not lag."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feldspar.report.smoothing import PLACES, SHARE, extremes, places_of, smoothed


@settings(deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=150))
def test_each_place_is_on_the_line_through_its_window(values: list[float]) -> None:
    half = len(values) // SHARE
    for place, value in enumerate(smoothed(values, range(len(values)))):
        start = max(0, min(place - half, len(values) - 1 - 2 * half))
        end = start + 2 * half + 1
        expected = values[place]
        if end - start > 1:
            line = np.polyfit(np.arange(start, end) - place, values[start:end], 1)
            expected = float(np.polyval(line, 0))
        # Both sum at most 11 values of at most 1e3, in float64.
        assert value == pytest.approx(expected, abs=1e-9)
        if half <= place < len(values) - half:
            assert value == pytest.approx(np.mean(values[start:end]), abs=1e-9)


def test_a_falling_line_stays_where_it_is() -> None:
    values = [10 - 0.01 * step for step in range(900)]
    places = places_of(len(values))
    assert places[0] == 0 and places[-1] == 899 and len(places) == PLACES
    expected = [values[place] for place in places]
    assert smoothed(values, places) == pytest.approx(expected, abs=1e-12)


def test_values_that_are_not_finite_are_left_out() -> None:
    values = [1.0] * 30 + [math.nan, math.inf] + [1.0] * 30
    assert smoothed(values, range(len(values))) == pytest.approx([1.0] * len(values))
    assert math.isnan(smoothed([math.nan], [0])[0])


def test_a_thinned_curve_keeps_its_highest_and_lowest_values() -> None:
    y = np.random.default_rng(1).normal(size=20_000)
    y[777], y[15_000] = 99.0, -99.0
    x, kept = extremes(range(20_000), y.tolist())
    assert max(kept) == 99 and min(kept) == -99 and len(kept) <= 2 * PLACES
    assert x == sorted(x) and [float(y[int(place)]) for place in x] == kept
    assert extremes([1, 2], [3.0, 4.0]) == ([1, 2], [3.0, 4.0])
