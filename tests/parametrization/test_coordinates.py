"""Slopes by regression, and verdicts on the slopes that were measured of right and wrong rules."""

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldspar.parametrization.coordinates import (
    ATTENTION_MULTIPLIER,
    QUANTITIES,
    STEPS,
    Axis,
    Measure,
    bounds,
    claimed_axes,
    clear_growth,
    slope,
)
from feldspar.recipe.sections.parametrization import ParametrizationSettings

FEED_FORWARD_0 = Measure("feed_forward_output", "size", 0)
RESIDUAL_1 = Measure("residual_stream", "change", 1)
RESIDUAL_5 = Measure("residual_stream", "change", 5)
RESIDUAL_10 = Measure("residual_stream", "change", 10)
LOGITS_0 = Measure("logits", "size", 0)


def settings(type_: str, **changes: object) -> ParametrizationSettings:
    bases = {"base_d_model": 64, "base_d_ff": 256.0, "base_n_layers": 2}
    values = {"type": type_, "learning_rate": 1e-2} | ({} if type_ == "sp" else bases)
    return ParametrizationSettings.model_validate(values | changes)


def flat(changes: Mapping[Measure, float] | None = None) -> dict[Measure, float]:
    """The slopes of a parametrization that is stable along width."""
    found = {
        Measure(quantity, kind, step): 0.0
        for quantity in QUANTITIES
        for kind in ("size", "change")
        for step in STEPS
        if kind == "size" or step > 0
    }
    return found | {LOGITS_0: -0.5, ATTENTION_MULTIPLIER: -1.0} | dict(changes or {})


def broken(axis: Axis, type_: str, slopes: dict[Measure, float]) -> set[Measure]:
    return {bound.measure for bound in bounds(axis, settings(type_)) if not bound.holds(slopes)}


@given(
    power=st.floats(-3, 3),
    scale=st.floats(1e-6, 1e6),
    seeds=st.lists(st.floats(0.5, 2), min_size=1, max_size=4),
)
def test_a_power_law_gives_its_own_exponent_whatever_its_scale(
    power: float, scale: float, seeds: list[float]
) -> None:
    widths = (64, 128, 256, 512)
    sizes = [[scale * seed * width**power for seed in seeds] for width in widths]
    assert slope(widths, sizes) == pytest.approx(power, abs=1e-9)


def test_the_slope_is_the_regression_on_the_mean_of_the_logarithms() -> None:
    # log2 sizes, mean over seeds: 1, 3, 4 at 0, 1, 2: the line of least squares rises by 1.5.
    assert slope((1, 2, 4), [[1, 4], [8, 8], [4, 64]]) == pytest.approx(1.5)
    assert slope((1 / 4, 1), [[2.0], [1.0]]) == pytest.approx(-0.5)


@pytest.mark.parametrize("size", [0.0, math.inf, math.nan])
def test_a_run_that_diverged_has_no_slope_and_passes_nothing(size: float) -> None:
    assert math.isnan(slope((64, 128), [[1.0, size], [1.0, 1.0]]))
    assert broken("width", "mup", flat({RESIDUAL_5: math.nan})) == {RESIDUAL_5}


@pytest.mark.parametrize("type_", ["mup", "supar", "completep"])
def test_right_rules_pass_on_width(type_: str) -> None:
    measured = flat({FEED_FORWARD_0: -0.02, RESIDUAL_1: 0.04, RESIDUAL_5: 0.08, RESIDUAL_10: 0.14})
    assert broken("width", type_, measured) == set()


@pytest.mark.parametrize(
    ("mistake", "slopes", "seen"),
    [
        (
            "hidden init not divided by the root of m_d",
            flat({FEED_FORWARD_0: 1.08, RESIDUAL_1: 0.78, RESIDUAL_5: 0.47, LOGITS_0: -0.52}),
            {FEED_FORWARD_0, RESIDUAL_1, RESIDUAL_5},
        ),
        (
            "hidden learning rate not divided by m_d",
            flat({RESIDUAL_1: 0.85, RESIDUAL_5: 1.94}),
            {RESIDUAL_1, RESIDUAL_5},
        ),
        (
            "logits multiplier missing",
            flat({RESIDUAL_1: 0.06, RESIDUAL_5: 0.24, LOGITS_0: 0.50}),
            {LOGITS_0},
        ),
        (
            "attention logits divided by the root of head_dim",
            flat({ATTENTION_MULTIPLIER: -0.5}),
            {ATTENTION_MULTIPLIER},
        ),
    ],
)
def test_each_mistake_on_width_breaks_a_bound(
    mistake: str, slopes: dict[Measure, float], seen: set[Measure]
) -> None:
    assert broken("width", "mup", slopes) == seen, mistake


@pytest.mark.parametrize(
    ("mistake", "slopes", "seen"),
    [
        (
            "none",
            flat({FEED_FORWARD_0: 0.01, RESIDUAL_1: 0.04, RESIDUAL_5: 0.05, LOGITS_0: 0.0}),
            set(),
        ),
        (
            "init without m_rho: gone by step 5",
            flat({FEED_FORWARD_0: 1.07, RESIDUAL_1: 0.48, RESIDUAL_5: 0.09}),
            {FEED_FORWARD_0, RESIDUAL_1},
        ),
        (
            "learning rate without m_rho: nothing at step 0",
            flat({FEED_FORWARD_0: 0.01, RESIDUAL_1: 0.49, RESIDUAL_5: 0.75}),
            {RESIDUAL_1, RESIDUAL_5},
        ),
    ],
)
def test_each_mistake_on_density_breaks_a_bound(
    mistake: str, slopes: dict[Measure, float], seen: set[Measure]
) -> None:
    assert broken("density", "supar", slopes) == seen, mistake


@pytest.mark.parametrize(
    ("rule", "at_5", "at_10", "passes", "grows"),
    [
        ("none", 0.88, 0.96, False, True),
        ("one half", -0.04, -0.04, True, False),
        ("one", -0.21, -0.16, True, False),
        ("between", 0.36, 0.0, False, False),
    ],
)
def test_depth_is_judged_by_the_change_of_the_residual_stream(
    rule: str, at_5: float, at_10: float, passes: bool, grows: bool
) -> None:
    slopes = flat({FEED_FORWARD_0: -0.5, RESIDUAL_1: 0.5, RESIDUAL_5: at_5, RESIDUAL_10: at_10})
    assert (broken("depth", "completep", slopes) == set()) is passes, rule
    assert all(bound.holds(slopes) for bound in clear_growth("depth")) is grows, rule


@pytest.mark.parametrize("axis", ["width", "density"])
def test_growth_is_clear_where_the_last_feed_forward_output_follows_the_axis(axis: Axis) -> None:
    (bound,) = clear_growth(axis)
    assert bound.holds({Measure("feed_forward_output", "size", 10): 1.67})
    assert not bound.holds({Measure("feed_forward_output", "size", 10): 0.59})


def test_what_is_noisy_or_hidden_is_not_judged() -> None:
    noisy = flat()
    noisy |= {
        Measure("attention_logits", kind, step): 0.4
        for kind in ("size", "change")
        for step in STEPS[1:]
    }
    assert broken("width", "mup", noisy) == set()
    # The logits see no density, and the standard parametrization promises no size of them.
    assert broken("density", "supar", flat({LOGITS_0: 0.5})) == set()
    assert broken("width", "sp", flat({LOGITS_0: 0.5, ATTENTION_MULTIPLIER: -0.5})) == set()


@pytest.mark.parametrize(
    ("chosen", "axes"),
    [
        (settings("sp"), ()),
        (settings("mup"), ("width",)),
        (settings("supar"), ("width", "density")),
        (settings("completep"), ("width", "depth")),
        (settings("completep", depth_exponent=0.5), ("width", "depth")),
        (settings("supar", depth_exponent=1.0), ("width", "density", "depth")),
    ],
)
def test_a_parametrization_promises_what_its_rules_cover(
    chosen: ParametrizationSettings, axes: tuple[Axis, ...]
) -> None:
    assert claimed_axes(chosen) == axes
