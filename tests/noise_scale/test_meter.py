"""Averages in token time: exact weights, what is undetermined, states, calibration."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldspar.core.errors import UserError
from feldspar.noise_scale.control.calibration import Calibration
from feldspar.noise_scale.control.meter import NoiseScaleMeter
from feldspar.noise_scale.control.statistics import Moments, StepStatistics


def stats(noise: float, signal_sq: float, num_examples: int = 8, group: str = "total"):
    """Statistics whose unbiased pair is the one given."""
    grad_sq = signal_sq + noise / num_examples
    m1 = grad_sq + noise * (1 - 1 / num_examples)
    return StepStatistics({"w": Moments(m1, grad_sq, num_examples)}, {group: ["w"]})


steps = st.lists(
    st.tuples(st.floats(0, 100), st.floats(-10, 10), st.integers(1, 5000), st.booleans()),
    min_size=1,
    max_size=20,
)


@given(steps=steps, half_life=st.floats(10, 1e5))
def test_weights_are_those_of_their_definition(steps, half_life):
    meter = NoiseScaleMeter(half_life)
    for noise, signal, tokens, finite in steps:
        meter.update(stats(noise, signal if finite else math.nan), tokens)
    weights, later = [], 1.0
    for _, _, tokens, finite in reversed(steps):
        weights.insert(0, later * (1 - 2 ** (-tokens / half_life)) * finite)
        later *= 2 ** (-tokens / half_life)
    weights = np.array(weights)
    estimate = meter.estimate("total") if weights.sum() > 0 else None
    assert meter.skipped_steps == sum(not finite for *_, finite in steps)
    if estimate is None or weights.sum() < 1e-200:
        return
    signals = np.array([signal for _, signal, _, _ in steps])
    noises = np.array([noise for noise, *_ in steps])
    assert estimate.signal_sq == pytest.approx(np.average(signals, weights=weights), abs=1e-6)
    assert estimate.noise == pytest.approx(np.average(noises, weights=weights), abs=1e-6)
    share = (weights**2).sum() / weights.sum() ** 2
    if share < 0.99:
        mean = np.average(signals, weights=weights)
        variance = np.average((signals - mean) ** 2, weights=weights)
        error = math.sqrt(variance * share)
        assert estimate.signal_sq_error == pytest.approx(error, rel=1e-3, abs=1e-4)


def test_the_band_is_the_specifications():
    meter = NoiseScaleMeter(1000.0)
    for signal in (1.0, 3.0, 2.0, 2.5):
        meter.update(stats(10.0, signal), 100)
    found, wide = meter.estimate("total"), meter.estimate("total", errors=2.0)
    # 100 tokens leave 2^(-0.1) of a weight.
    weights = np.array([2.0 ** (-0.1 * later) for later in (3, 2, 1, 0)])
    signals = np.array([1.0, 3.0, 2.0, 2.5])
    mean = np.average(signals, weights=weights)
    variance = np.average(signals**2, weights=weights) - mean**2
    error = math.sqrt(variance * (weights**2).sum()) / weights.sum()
    assert found.signal_sq_error == pytest.approx(error)
    assert found.value == pytest.approx(found.noise / found.signal_sq)
    assert found.low == pytest.approx(found.noise / (found.signal_sq + found.signal_sq_error))
    assert found.high == pytest.approx(found.noise / (found.signal_sq - found.signal_sq_error))
    assert wide.low < found.low < found.value < found.high < wide.high
    assert found.value_tokens == pytest.approx(found.value * 100 / 8)


def test_a_signal_that_is_not_positive_leaves_the_noise_scale_undetermined():
    meter = NoiseScaleMeter(1000.0)
    assert meter.estimate("total").status == "undetermined"
    for signal in (-1.0, 0.5, -0.2, 0.4):
        meter.update(stats(10.0, signal), 100)
    found = meter.estimate("total")
    assert found.status == "undetermined" and math.isnan(found.value)
    assert 0 < found.low < math.inf and found.high == math.inf
    for _ in range(50):
        meter.update(stats(10.0, -1.0), 100)
    found = meter.estimate("total")
    assert math.isnan(found.value) and math.isnan(found.low) and found.high == math.inf


def test_one_step_says_nothing_of_its_error():
    meter = NoiseScaleMeter(1000.0)
    meter.update(stats(10.0, 2.0), 100)
    found = meter.estimate("total")
    assert found.value == pytest.approx(5) and found.status == "measured"
    assert found.low == 0 and found.high == math.inf and found.effective_steps == pytest.approx(1)


def test_components_are_averaged_before_the_division():
    """Neither the mean of ratios nor a clamped signal gives the ratio of the means."""
    rng = np.random.default_rng(0)
    meter = NoiseScaleMeter(1e9)
    signals = rng.normal(0.05, 0.35, 4000)
    for signal in signals:
        meter.update(stats(10.0, float(signal)), 8)
    assert (signals < 0).mean() > 0.4
    assert meter.estimate("total").value == pytest.approx(200, rel=0.3)
    clamped = 10 / np.maximum(signals, 1e-4).mean()
    assert clamped < 100


def test_skipped_steps_pass_the_time():
    meter, other = NoiseScaleMeter(100.0), NoiseScaleMeter(100.0)
    for each in (meter, other):
        each.update(stats(10.0, 1.0), 100)
    meter.update(None, 300)
    meter.update(stats(20.0, 1.0), 100)
    other.update(stats(20.0, 1.0), 100)
    assert meter.skipped_steps == 1
    assert meter.estimate("total").noise > other.estimate("total").noise
    weights = np.array([0.5 * 2**-4, 0.5])
    assert meter.estimate("total").noise == pytest.approx(np.average([10, 20], weights=weights))


def test_a_state_continues_bit_for_bit():
    meter = NoiseScaleMeter(1000.0)
    for signal in (1.0, 3.0, 2.0):
        meter.update(stats(10.0, signal), 100)
    meter.update(None, 10)
    twin = NoiseScaleMeter(1000.0)
    twin.load_state(json.loads(json.dumps(meter.state())))
    for each in (meter, twin):
        each.update(stats(7.0, 1.5), 50)
    assert twin.estimate("total") == meter.estimate("total")
    assert twin.skipped_steps == 1


@pytest.mark.parametrize("half_life", [0, -1, math.inf, math.nan])
def test_a_half_life_is_positive(half_life):
    with pytest.raises(UserError, match="half_life_tokens must be positive"):
        NoiseScaleMeter(half_life)


def test_unknown_groups_and_empty_steps_are_refused():
    meter = NoiseScaleMeter(10.0)
    with pytest.raises(UserError, match="positive number of tokens"):
        meter.update(stats(1.0, 1.0), 0)
    meter.update(stats(1.0, 1.0), 5)
    with pytest.raises(UserError, match="norms was not measured"):
        meter.estimate("norms")


def test_calibration_starts_at_the_papers_factor_and_follows_what_it_sees():
    calibration = Calibration(half_life_tokens=1000.0)
    assert calibration.factor == pytest.approx(1.4) and math.isnan(calibration.measured)
    rng = np.random.default_rng(0)
    for step in range(1, 2001):
        norm = stats(10.0, 1.0 + rng.normal(), group="norm")
        total = stats(60.0, 2.0 + rng.normal())
        calibration.update(norm, total, 8)
        if step == 50:
            early = calibration.factor
    assert calibration.measured == pytest.approx(3, rel=0.1)
    assert abs(early - 1.4) < abs(calibration.factor - 1.4)
    assert calibration.factor == pytest.approx(3, rel=0.15)
    twin = Calibration(half_life_tokens=1000.0)
    twin.load_state(json.loads(json.dumps(calibration.state())))
    assert twin.factor == calibration.factor


def test_calibration_falls_back_while_the_signal_is_undetermined():
    calibration = Calibration(half_life_tokens=1000.0)
    calibration.update(stats(10.0, -1.0, group="norm"), stats(10.0, 1.0), 8)
    assert calibration.factor == 1.4
    calibration.update(None, stats(10.0, 1.0), 8)
    with pytest.raises(UserError, match="prior must be positive"):
        Calibration(1000.0, prior=0.0)
