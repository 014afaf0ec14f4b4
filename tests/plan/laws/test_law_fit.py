"""Fits: the paper's seven points, laws found again, the least squares against brute force."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feldspar.core.errors import UserError
from feldspar.core.streams import numpy_stream
from feldspar.plan.laws.law import CEREBRAS_GPT_POINTS, Point, PowerLaw, compute_law
from feldspar.plan.laws.law_fit import check_sizes, fit_law
from feldspar.plan.laws.law_form import FormFit
from feldspar.plan.laws.law_report import law_record
from feldspar.plan.laws.law_solver import fit_curves

PAPER = CEREBRAS_GPT_POINTS
LARGEST = PAPER[-1]
WITH_CONSTANT = "power_plus_constant"


def noisy(law: PowerLaw, count: int, noise: float, *, decades: float = 3.0) -> list[Point]:
    """Points of a law with normal noise on log L, the same each time."""
    errors = numpy_stream(0, "test", count).standard_normal(count) * noise
    flops = 1e17 * np.geomspace(1, 10**decades, count)
    return [
        Point(float(f), law.loss(float(f)) * math.exp(error))
        for f, error in zip(flops, errors, strict=True)
    ]


# The paper's points.


def test_the_papers_seven_points_give_the_papers_law_in_predictions() -> None:
    fit = FormFit(WITH_CONSTANT, PAPER)
    assert 100 * fit.residual_std == pytest.approx(0.658, abs=5e-4)
    published = compute_law("cerebras-gpt").curve
    for flops in np.geomspace(2.6e18, 2.3e22, 30):
        assert fit.predict(float(flops)) == pytest.approx(published.loss(float(flops)), rel=0.0013)
        assert fit.curve.loss(float(flops)) == pytest.approx(fit.predict(float(flops)))


def test_six_and_five_sizes_with_a_constant() -> None:
    six, five = FormFit(WITH_CONSTANT, PAPER[:6]), FormFit(WITH_CONSTANT, PAPER[:5])
    assert six.predict(LARGEST.flops) == pytest.approx(1.598, abs=5e-4)
    assert five.curve.constant == pytest.approx(0, abs=1e-6)
    assert five.predict(LARGEST.flops) == pytest.approx(1.546, abs=5e-4)


def test_a_pure_power_law_on_six_sizes_predicts_13b_within_half_a_percent() -> None:
    fit = fit_law(PAPER)
    six = fit.judged["power"]
    assert six.curve.exponent == pytest.approx(0.05495, abs=5e-6)
    assert six.curve.constant == 0
    assert fit.form == "power"
    assert fit.held_out.predicted == pytest.approx(1.5701, abs=5e-5)
    assert 100 * fit.held_out.error == pytest.approx(-0.12, abs=5e-3)
    assert fit.held_out.inside and fit.held_out.observed == LARGEST.loss
    assert fit.held_out.extrapolation == pytest.approx(2.3e22 / 6.3e21)
    (other,) = fit.judgement(WITH_CONSTANT)
    assert 100 * other.error == pytest.approx(1.6, abs=0.05)


def test_the_interval_of_the_curve_from_six_sizes() -> None:
    fit = FormFit(WITH_CONSTANT, PAPER[:6])
    curve = fit.interval(LARGEST.flops, new_run=False)
    run = fit.interval(LARGEST.flops)
    assert curve is not None and run is not None
    assert curve == pytest.approx((1.56, 1.63), abs=0.006)
    assert curve[0] <= LARGEST.loss <= curve[1]
    assert run[0] < curve[0] and run[1] > curve[1]


def test_the_held_out_size_is_in_no_fit_that_is_judged() -> None:
    moved = [*PAPER[:-1], Point(LARGEST.flops, 1.2)]
    plain, changed = fit_law(PAPER), fit_law(moved)
    for form in plain.judged:
        predicted = [fit.judgement(form)[0].predicted for fit in (plain, changed)]
        assert predicted[0] == predicted[1]
        intervals = [fit.judgement(form)[0].interval for fit in (plain, changed)]
        assert intervals[0] == intervals[1]
    assert changed.predict(1e23) < plain.predict(1e23) - 0.05
    two = fit_law(PAPER, held_out=2)
    assert [size.flops for size in two.judgement("power")] == [6.3e21, 2.3e22]
    assert two.judged["power"].points == PAPER[:5]


# Laws found again.

LAWS = st.builds(
    PowerLaw,
    exponent=st.floats(0.03, 0.4),
    scale_flops=st.floats(18, 25).map(lambda power: 10**power),
    constant=st.floats(0.2, 2.0),
)


@settings(max_examples=40)
@given(LAWS, st.integers(5, 9), st.floats(2.0, 5.0))
def test_a_law_is_found_again_from_its_own_points(law: PowerLaw, count: int, span: float) -> None:
    fit = fit_law(noisy(law, count, 0.0, decades=span))
    for factor in (0.1, 1.0, 10.0, 100.0):
        flops = fit.points[-1].flops * factor
        assert fit.predict(flops) == pytest.approx(law.loss(flops), rel=2e-4)
    best = fit.judged[fit.form].predict(fit.points[-1].flops)
    assert best == pytest.approx(fit.points[-1].loss, rel=1e-4)
    assert fit.final.residual_std < 1e-5


@given(st.floats(0.02, 0.5), st.floats(18, 25), st.integers(3, 9))
def test_a_pure_power_law_is_found_again_and_preferred(
    exponent: float, log_scale: float, count: int
) -> None:
    law = PowerLaw(exponent, 10**log_scale)
    fit = fit_law(noisy(law, count, 0.0))
    assert fit.form == "power"
    assert fit.final.curve.exponent == pytest.approx(exponent)
    assert fit.predict(1e21) == pytest.approx(law.loss(1e21))


@settings(max_examples=6)
@given(LAWS, st.floats(-30, 30), st.floats(-3, 3), st.permutations(range(7)))
def test_units_and_order_do_not_matter(
    law: PowerLaw, log_flops: float, log_loss: float, order: list[int]
) -> None:
    points = noisy(law, 7, 0.005)
    flops_unit, loss_unit = 10**log_flops, 10**log_loss
    plain = fit_law(points)
    other = fit_law(
        [Point(points[i].flops * flops_unit, points[i].loss * loss_unit) for i in order]
    )
    assert other.form == plain.form
    place = 3e20
    assert other.predict(place * flops_unit) == pytest.approx(
        plain.predict(place) * loss_unit, rel=1e-5
    )
    intervals = (plain.interval(place), other.interval(place * flops_unit))
    assert intervals[0] is not None and intervals[1] is not None
    assert [bound / loss_unit for bound in intervals[1]] == pytest.approx(intervals[0], rel=1e-4)


@settings(max_examples=5)
@given(LAWS)
def test_the_interval_widens_with_noise_and_with_distance(law: PowerLaw) -> None:
    widths = []
    for noise in (0.001, 0.004, 0.016):
        low, high = _interval(FormFit("power", tuple(noisy(PowerLaw(0.1, 1e20), 8, noise))), 1e21)
        widths.append(math.log(high / low))
    assert all(later > 3 * earlier for earlier, later in pairwise(widths))
    fit = FormFit(WITH_CONSTANT, tuple(noisy(law, 8, 0.005)))
    spans = [_interval(fit, flops) for flops in (1e20, 1e22, 1e24)]
    ratios = [high / low for low, high in spans]
    assert ratios == sorted(ratios)


def _interval(fit: FormFit, flops: float) -> tuple[float, float]:
    interval = fit.interval(flops)
    assert interval is not None
    return interval


def test_intervals_hold_new_runs_about_as_often_as_they_say() -> None:
    law, place = PowerLaw(0.09, 3e21), 3e20
    flops = [float(f) for f in 1e17 * np.geomspace(1, 1e3, 12)]
    held = []
    for trial in range(200):
        factors = np.exp(numpy_stream(trial, "coverage").standard_normal(13) * 0.01)
        points = [Point(f, law.loss(f) * c) for f, c in zip(flops, factors, strict=False)]
        low, high = _interval(FormFit("power", tuple(points)), place)
        held.append(low <= law.loss(place) * factors[-1] <= high)
    assert 0.85 <= np.mean(held) <= 0.99


# The least squares.


@settings(max_examples=30)
@given(LAWS, st.integers(0, 50), st.sampled_from([None, 0.004]))
def test_no_curve_of_a_fine_grid_is_closer(law: PowerLaw, seed: int, huber: float | None) -> None:
    x = np.linspace(-3.5, 3.5, 7)
    losses = np.array([law.loss(float(np.exp(value) * 1e19)) for value in x])
    y = np.log(losses) + numpy_stream(seed, "grid").standard_normal(7) * 0.01
    curves = fit_curves(x, y[None, :], with_constant=True, huber=huber)
    found = _cost(np.log(curves.losses(x)[0]) - y, huber)
    least = math.exp(y.min())
    assert curves.exponent[0] > 0 and 0 <= curves.constant[0] < least
    constants = np.linspace(0, 0.999, 60) * least
    exponents = np.geomspace(0.005, 3.0, 120)
    shapes = np.exp(-exponents[:, None] * x)
    for constant in constants:
        levels = np.mean(np.log(np.exp(y) - constant)) + np.linspace(-0.05, 0.05, 21)
        grid = np.exp(levels)[:, None, None] * shapes + constant
        assert found <= _cost(np.log(grid) - y, huber).min() + 1e-12


def _cost(residuals: np.ndarray, huber: float | None) -> np.ndarray:
    squares = residuals**2
    if huber is not None:
        size = np.abs(residuals)
        squares = np.where(size <= huber, squares, huber * (2 * size - huber))
    return squares.sum(axis=-1)


def test_huber_holds_against_one_bad_run() -> None:
    law = PowerLaw(0.08, 1e21, 0.5)
    points = noisy(law, 9, 0.001)
    points[3] = Point(points[3].flops, points[3].loss * 1.2)
    robust, plain = (FormFit("power", tuple(points), huber) for huber in (0.002, None))
    truth = FormFit("power", tuple(noisy(law, 9, 0.001)))
    wrong = [abs(fit.predict(1e18) / truth.predict(1e18) - 1) for fit in (robust, plain)]
    assert wrong[0] < wrong[1] / 5


def test_the_same_points_give_the_same_bytes() -> None:
    assert law_record(fit_law(PAPER), [1e23]) == law_record(fit_law(PAPER[::-1]), [1e23])


# What is said, and what is refused.


def test_few_points_carry_less() -> None:
    three, four, five = (fit_law(PAPER[:count]) for count in (3, 4, 5))
    assert three.form == four.form == "power"
    assert [*three.fitted] == ["power"] and [*four.fitted] == ["power", WITH_CONSTANT]
    assert three.held_out.interval is None and three.held_out.inside is None
    assert "a line fits two sizes exactly" in three.warnings[-1]
    assert "a constant needs 4 over 1.5" in four.warnings[0]
    assert [*five.judged] == ["power", WITH_CONSTANT] and five.warnings == ()
    assert three.interval(1e20) is not None


@pytest.mark.parametrize(
    ("points", "held_out", "message"),
    [
        (PAPER[:2], 1, "2 sizes are too few"),
        ([PAPER[0], PAPER[0], PAPER[1]], 1, "2 sizes are too few"),
        ([Point(1e18 * n, 3.0 / n) for n in range(1, 8)], 1, r"span 0\.85 decades"),
        (PAPER, 0, "held_out: 0 of 7"),
        (PAPER, 6, "held_out: 6 of 7"),
        ([Point(f, 2.0) for f in (1e18, 1e19, 1e20, 1e21)], 1, "the losses do not fall"),
        ([Point(f, math.log(f)) for f in (1e18, 1e19, 1e20, 1e21)], 1, "the losses do not fall"),
        ([*PAPER[:6], Point(1e24, math.nan)], 1, "loss: point 7"),
        ([*PAPER[:6], Point(0.0, 1.0)], 1, "flops: point 7"),
    ],
)
def test_points_without_a_law_are_refused(points: list[Point], held_out: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit_law(points, held_out=held_out)


def test_sizes_can_be_checked_before_they_are_trained() -> None:
    check_sizes([1e15, 1e16, 1e17], 1)
    with pytest.raises(UserError, match=r"span 1\.40 decades"):
        check_sizes([1e15, 2e15, 4e15, 2.5e16], 1)
    with pytest.raises(UserError, match="huber"):
        fit_law(PAPER, huber=0.0)


@pytest.mark.parametrize("flops", [0.0, -1.0, math.nan])
def test_no_prediction_without_flops(flops: float) -> None:
    fit = fit_law(PAPER)
    for ask in (fit.predict, fit.interval):
        with pytest.raises(UserError, match=r"^flops: "):
            ask(flops)


def test_the_record_says_what_outsiders_rely_on_and_every_doubt() -> None:
    found = law_record(fit_law(PAPER), [1e23, 1e24])
    assert found["form"] == "power" and found["parameters"]["constant"] == 0
    assert found["residual_std"] == pytest.approx(0.00749, abs=5e-6)
    held_out = found["held_out"]
    assert {"flops", "observed", "predicted", "interval"} <= set(held_out)
    assert held_out["fitted_points"] == 6 and held_out["inside_interval"] is True
    near, far = found["predictions"]
    assert near["flops"] == 1e23 and near["interval"][0] < near["loss"] < near["interval"][1]
    assert near["calibrated"] and not far["calibrated"]
    assert far["extrapolation"] == pytest.approx(1e24 / 2.3e22)
    assert found["disagreement_percent"] == pytest.approx(1.75, abs=5e-3)
    rough, beyond = found["warnings"]
    assert "7 points are rough" in rough and "43.5 times the most" in beyond
    forms = found["forms"]
    assert forms[WITH_CONSTANT]["held_out"]["predicted"] == pytest.approx(1.598, abs=5e-4)
    assert found["curve"][0]["flops"] == pytest.approx(2.6e18)
    assert found["curve"][-1]["flops"] == pytest.approx(1e24)


def test_a_record_of_few_points_says_what_is_missing() -> None:
    found = law_record(fit_law(PAPER[:3]))
    assert found["held_out"]["interval"] is None
    assert found["forms"][WITH_CONSTANT] is None and found["disagreement_percent"] is None
    both = law_record(fit_law(PAPER, held_out=2))
    assert [item["flops"] for item in both["held_out"]["others"]] == [6.3e21]
    many = law_record(fit_law(noisy(PowerLaw(0.1, 1e20, 0.5), 10, 0.002)))
    assert many["intervals"]["rough"] is False
