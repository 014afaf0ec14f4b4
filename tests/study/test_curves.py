"""Where an optimum is and how far it moved, on curves that are known."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from feldspar.study.curves import Curve, compare_curves

RATES = tuple(2.0**power for power in range(-9, -2))

# Measured losses of the specification, section 7.4: rates 2^-9 to 2^-3, one seed.
DENSE = (2.468, 2.401, 2.385, 2.495, 2.787, 2.913, 2.949)
SUPAR_SPARSE = (2.497, 2.429, 2.412, 2.592, 2.629, 2.772, 2.887)
MUP_SPARSE = (2.780, 2.700, 2.650, 2.598, 2.522, 2.444, 2.430)
SP_QUARTER = (2.501, 2.474, 2.545, 2.533, 2.732, 2.810, 3.175)


def test_the_published_claim_on_the_measured_losses() -> None:
    dense = Curve(RATES, DENSE)
    assert dense.rate == 2**-7 and not dense.at_edge
    assert dense.parabola_rate == pytest.approx(2 ** (-7 - 0.5 + 0.016 / 0.126), rel=1e-6)
    supar = compare_curves(dense, Curve(RATES, SUPAR_SPARSE), 2**-7)
    assert (supar.steps, supar.verdict, supar.excess) == (0, "holds", 0.0)
    assert supar.parabola_steps is not None and abs(supar.parabola_steps) < 0.1
    mup = compare_curves(dense, Curve(RATES, MUP_SPARSE), 2**-7)
    assert (mup.steps, mup.verdict) == (4, "moved")
    assert mup.excess == pytest.approx(2.650 / 2.430 - 1)
    assert Curve(RATES, MUP_SPARSE).at_edge and mup.parabola_steps is None
    quarter = compare_curves(dense, Curve(RATES, SP_QUARTER), 2**-7)
    assert (quarter.steps, quarter.verdict) == (-1, "holds")


@given(
    st.floats(-8.9, -3.1),
    st.floats(0.01, 2.0),
    st.lists(st.floats(0.2, 1.8), min_size=6, max_size=9),
)
def test_a_parabola_is_found_on_any_grid(turn: float, bend: float, gaps: list[float]) -> None:
    x = [-10.0]
    for gap in gaps:
        x.append(x[-1] + gap)
    assume(x[1] < turn < x[-2])
    curve = Curve(tuple(2.0**p for p in x), tuple(3 + bend * (p - turn) ** 2 for p in x))
    assume(not curve.at_edge)
    assert curve.parabola_rate is not None
    assert math.log2(curve.parabola_rate) == pytest.approx(turn, abs=1e-5)
    own = curve.steps(curve.rates[0], curve.rates[-1])
    assert own == pytest.approx(len(gaps))


@given(st.integers(0, 6), st.integers(0, 6))
def test_the_move_is_told_in_grid_steps(first: int, second: int) -> None:
    def valley(place: int) -> Curve:
        return Curve(RATES, tuple(2 + abs(index - place) / 20 for index in range(7)))

    found = compare_curves(valley(first), valley(second), RATES[first])
    assert found.steps == second - first
    assert found.excess == pytest.approx(abs(second - first) / 40)
    edge = {first, second} & {0, 6}
    within = abs(second - first) <= 1
    assert found.verdict == ("moved" if not within else "unclear" if edge else "holds")
    if not edge:
        assert found.parabola_steps == pytest.approx(second - first)


def test_divergence_bounds_an_optimum_without_hiding_it() -> None:
    cliff = Curve(RATES, (2.6, 2.5, 2.4, *[math.inf] * 4))
    assert cliff.rate == 2**-7 and not cliff.at_edge and cliff.parabola_rate is None
    dense = Curve(RATES, DENSE)
    found = compare_curves(dense, cliff, 2**-7)
    assert (found.steps, found.parabola_steps, found.verdict) == (0, None, "holds")
    early = Curve(RATES, (2.6, *[math.inf] * 6))
    assert early.at_edge
    assert compare_curves(dense, early, 2**-7).excess == math.inf


def test_one_step_that_costs_much_does_not_hold() -> None:
    """Measured: sp from width 32 to 128, where the proxy's rate costs 10.7 %."""
    down = Curve(RATES[:4], (3.2, 3.10, 3.03, 3.06))
    found = compare_curves(down, Curve(RATES[:4], (2.7, 2.612, 2.8915, 3.0)), RATES[2])
    assert found.steps == -1 and found.excess == pytest.approx(0.107, abs=1e-4)
    assert found.verdict == "moved"
    cliff = Curve(RATES[:4], (2.7, 2.612, math.inf, math.inf))
    assert compare_curves(down, cliff, RATES[2]).verdict == "moved"


def test_where_nothing_converged_nothing_is_claimed() -> None:
    dense, lost = Curve(RATES, DENSE), Curve(RATES, (math.inf,) * 7)
    assert lost.rate is None and lost.index is None and lost.at_edge
    down = compare_curves(dense, lost, 2**-7)
    assert (down.steps, down.excess, down.verdict) == (None, math.inf, "moved")
    assert compare_curves(lost, dense, 2**-7).verdict == "unclear"


def test_equal_losses_turn_at_the_middle() -> None:
    flat = Curve(RATES, (3.0, 2.0, 2.0, 2.0, 3.0, 4.0, 5.0))
    assert flat.rate == 2**-8
    assert flat.parabola_rate == pytest.approx(2**-7.5)
