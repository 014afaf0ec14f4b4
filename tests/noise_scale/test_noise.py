"""Estimators: identities, the specification's numbers, and problems whose noise scale is known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from feldspar.core.errors import UserError
from feldspar.noise_scale.control.calibration import regress_through_origin
from feldspar.noise_scale.control.group_tracker import track_groups
from feldspar.noise_scale.control.meter import NoiseScaleMeter
from feldspar.noise_scale.control.statistics import Moments, StepStatistics
from feldspar.noise_scale.tracker import instrument

GOLDEN = np.array([[1.0, 0], [0, 1], [1, 1], [2, 0]])


def moments_of(gradients: np.ndarray, per_group: int = 1) -> Moments:
    """Of per-example gradients (B, D)."""
    means = gradients.reshape(-1, per_group, gradients.shape[1]).mean(axis=1)
    m1 = float((means**2).sum(axis=1).mean())
    return Moments(m1, float((gradients.mean(0) ** 2).sum()), len(gradients), per_group)


def test_the_golden_estimates():
    one = moments_of(GOLDEN)
    assert (one.m1, one.grad_sq, one.noise, one.signal_sq) == (2, 1.25, 1, 1)
    two = moments_of(GOLDEN, 2)
    assert (two.m1, two.noise, two.signal_sq) == (1.5, 1, 1)


@given(
    n_groups=st.integers(2, 6),
    per_group=st.integers(1, 3),
    width=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_identities(n_groups, per_group, width, seed):
    gradients = np.random.default_rng(seed).normal(size=(n_groups * per_group, width))
    moments, n = moments_of(gradients), len(gradients)
    mean = gradients.mean(axis=0)
    assert moments.noise == pytest.approx(((gradients - mean) ** 2).sum() / (n - 1))
    products = gradients @ gradients.T
    pairs = (products.sum() - np.trace(products)) / (n * (n - 1))
    assert moments.signal_sq == pytest.approx(pairs)
    assert moments.grad_sq == pytest.approx(moments.signal_sq + moments.noise / n)
    grouped = moments_of(gradients, per_group)
    assert grouped.grad_sq == pytest.approx(grouped.signal_sq + grouped.noise / n)


def gaussian_steps(rng, n_steps, per_group):
    """D = 64, |mean| = 1, trace of the covariance 200, B = 64."""
    mean = np.full(64, 1 / 8)
    draws = rng.normal(size=(n_steps, 64, 64)) * math.sqrt(200 / 64) + mean
    return [moments_of(step, per_group) for step in draws]


@pytest.mark.parametrize(
    ("per_group", "noise_error", "signal_error"), [(1, 4.454, 0.711), (16, 20.41, 0.776)]
)
def test_gaussian_gradients_have_the_predicted_errors(per_group, noise_error, signal_error):
    steps = gaussian_steps(np.random.default_rng(0), 1000, per_group)
    noise, signal = [m.noise for m in steps], [m.signal_sq for m in steps]
    # A standard deviation of 1000 draws is known to 2 percent, a mean to std / sqrt(1000).
    assert np.std(noise) == pytest.approx(noise_error, rel=0.07)
    assert np.std(signal) == pytest.approx(signal_error, rel=0.07)
    assert np.mean(noise) == pytest.approx(200, abs=4 * noise_error / 31)
    assert np.mean(signal) == pytest.approx(1, abs=4 * signal_error / 31)


def stats_of(moments: Moments) -> StepStatistics:
    return StepStatistics({"w": moments}, {"total": ["w"]})


def ratio_with_error(noise, signal, blocks=20):
    """Return sum(noise) / sum(signal) and its jackknife error over blocks of steps."""
    pairs = np.array([noise, signal])
    sums = np.stack([part.sum(axis=1) for part in np.array_split(pairs, blocks, axis=1)])
    rest = sums.sum(axis=0) - sums
    without = rest[:, 0] / rest[:, 1]
    variance = (blocks - 1) / blocks * ((without - without.mean()) ** 2).sum()
    return pairs[0].sum() / pairs[1].sum(), math.sqrt(variance)


def test_linear_regression_has_the_noise_scale_that_theory_gives():
    """B_simple = (D + 1) + D sigma^2 / |error|^2 = 31 through an instrumented layer."""
    torch.manual_seed(0)
    width, n_examples, n_steps = 10, 64, 800
    layer = nn.Linear(width, 1, bias=False).double()
    truth = torch.zeros(width).double()
    with torch.no_grad():
        layer.weight.copy_(truth + math.sqrt(0.5 / width))
    tracker = instrument(layer, "all")
    meter = NoiseScaleMeter(half_life_tokens=1e9)
    noise, signal = [], []
    for _ in range(n_steps):
        x = torch.randn(n_examples, width).double()
        y = x @ truth + torch.randn(n_examples).double()
        layer.zero_grad()
        with tracker.microbatch():
            (0.5 * (layer(x).squeeze(1) - y).square()).mean().backward()
        stats = tracker.finish(n_examples)
        meter.update(stats, tokens=n_examples)
        noise.append(stats["total"].noise)
        signal.append(stats["total"].signal_sq)
    value, error = ratio_with_error(noise, signal)
    estimate = meter.estimate("total")
    assert estimate.status == "measured"
    assert abs(value - 31) < 3 * error and error < 2.5
    # Without forgetting, the running average is the ratio of sums.
    assert estimate.value == pytest.approx(value, rel=1e-3)
    assert estimate.low < 31 < meter.estimate("total", errors=3.0).high
    assert estimate.noise == pytest.approx(15.5, rel=0.02)
    assert estimate.tokens_per_example == pytest.approx(1)


def test_the_band_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside, n_runs = 0, 40
    for _ in range(n_runs):
        meter = NoiseScaleMeter(half_life_tokens=64 * 60)
        for moments in gaussian_steps(rng, 40, 1):
            meter.update(stats_of(moments), tokens=64)
        estimate = meter.estimate("total")
        inside += estimate.low <= 200 <= estimate.high
    # One standard error holds 68 percent: 27 of 40, give or take 3 a standard deviation.
    assert 18 <= inside <= 36


def test_grouped_estimates_agree_with_single_examples_on_a_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)).double()
    each, grouped = instrument(model, "all"), track_groups(model)
    sums = {"each": [0.0, 0.0], "grouped": [0.0, 0.0]}
    for _ in range(120):
        x = torch.randn(16, 6).double()
        y = x[:, :3] + torch.randn(16, 3).double()
        model.zero_grad()
        for part in range(4):
            of = slice(4 * part, 4 * part + 4)
            with each.microbatch(), grouped.microbatch(4):
                ((model(x[of]) - y[of]).square().sum() / 16).backward()
        found = {"each": each.finish(16)["total"], "grouped": grouped.finish(16)["total"]}
        assert found["each"].grad_sq == pytest.approx(found["grouped"].grad_sq)
        for name, moments in found.items():
            sums[name][0] += moments.noise
            sums[name][1] += moments.signal_sq
    ratios = {name: noise / signal for name, (noise, signal) in sums.items()}
    # Both are unbiased; the noise of 480 groups against 1920 examples is a few percent
    assert ratios["grouped"] == pytest.approx(ratios["each"], rel=0.1)


def test_regression_through_the_origin():
    x = [1.0, 2.0, 3.0, math.nan]
    found = regress_through_origin(x, [1.4, 2.8, 4.2, 5.0])
    assert (found.slope, found.correlation) == (pytest.approx(1.4), pytest.approx(1.0))
    with pytest.raises(UserError, match="at least three"):
        regress_through_origin(x[:2], x[:2])
