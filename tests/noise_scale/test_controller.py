"""Decisions on gradients whose noise scale is known, and rules that hold for any readings."""

import itertools
import json
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feldspar.core.errors import UserError
from feldspar.noise_scale.control.controller import BatchController, Reading, batch_sizes
from feldspar.noise_scale.control.meter import NoiseScaleMeter
from feldspar.noise_scale.control.statistics import Moments, StepStatistics
from feldspar.recipe.sections.noise_scale import NoiseScaleBatch

DIMENSIONS = 256
BUDGET = 400_000
HALF_LIFE = BUDGET / 100


def rules(**options: object) -> NoiseScaleBatch:
    given = {"minimum": "8 sequences", "maximum": "512 sequences", "gain": 1.0} | options
    return NoiseScaleBatch.model_validate({"type": "noise_scale", **given})


def step_of(noise_scale: float, batch: int, chance: np.random.Generator) -> StepStatistics:
    """One step of isotropic Gaussian gradients of unit length whose noise scale is known."""
    deviation = math.sqrt(noise_scale / DIMENSIONS)
    gradient = chance.normal(0, deviation / math.sqrt(batch), DIMENSIONS)
    gradient[0] += 1
    grad_sq = float((gradient**2).sum())
    around = deviation**2 * chance.chisquare(DIMENSIONS * (batch - 1)) / batch
    moments = Moments(grad_sq + around, grad_sq, batch)
    return StepStatistics({"all": moments}, {"total": ["all"]})


def reading_of(meter: NoiseScaleMeter) -> Reading:
    estimate = meter.estimate("total")
    return Reading(estimate.value, estimate.low, estimate.high)


def simulate(
    settings: NoiseScaleBatch, noise_scale: Callable[[float], float], seed: int
) -> list[int]:
    """The batch of each step; one token a sequence. ``noise_scale`` of the share of the budget."""
    chance = np.random.default_rng(seed)
    meter = NoiseScaleMeter(HALF_LIFE)
    controller = BatchController(settings, 8, HALF_LIFE, warmup_tokens=0)
    batches, tokens = [], 0
    while tokens < BUDGET:
        batch = controller.sequences
        batches.append(batch)
        meter.update(step_of(noise_scale(tokens / BUDGET), batch, chance), batch)
        if controller.due(tokens, tokens + batch):
            controller.decide(tokens + batch, reading_of(meter))
        tokens += batch
    return batches


@pytest.mark.parametrize("seed", range(3))
def test_a_constant_noise_scale_is_approached_from_below_and_kept(seed: int) -> None:
    batches = simulate(rules(), lambda share: 100.0, seed)
    # 96 is the last level below it; the band's low end stops one short where it is wide.
    assert batches[-1] in (64, 96)
    assert batches == sorted(batches)


def test_a_small_noise_scale_raises_nothing() -> None:
    assert set(simulate(rules(), lambda share: 3.0, 0)) == {8}


def test_a_growing_noise_scale_is_followed() -> None:
    batches = simulate(rules(), lambda share: 10 + 290 * share, 0)
    assert 180 <= batches[-1] <= 300
    positions = np.cumsum(batches) / BUDGET
    late = [batch / (10 + 290 * at) for batch, at in zip(batches, positions, strict=True)]
    assert max(late[len(late) // 4 :]) < 1.1


def test_a_falling_noise_scale_is_followed_only_where_that_is_allowed() -> None:
    falling = lambda share: 200.0 if share < 0.5 else 20.0  # noqa: E731
    batches = simulate(rules(monotone=False), falling, 0)
    assert max(batches) >= 128 and 8 <= batches[-1] <= 32
    turns = [b - a for a, b in itertools.pairwise(batches) if a != b]
    assert sum(a * b < 0 for a, b in itertools.pairwise(turns)) == 1
    kept = simulate(rules(), falling, 0)
    assert kept[-1] == max(kept) >= 128


def test_where_there_is_no_signal_the_batch_stays() -> None:
    chance = np.random.default_rng(0)
    meter = NoiseScaleMeter(HALF_LIFE)
    controller = BatchController(rules(), 8, HALF_LIFE, warmup_tokens=0)
    undetermined = 0
    for tokens in range(0, BUDGET, 8):
        gradient = chance.normal(0, 0.2, DIMENSIONS)
        grad_sq = float((gradient**2).sum())
        around = 0.32 * chance.chisquare(DIMENSIONS * 7) / 8
        moments = Moments(grad_sq + around, grad_sq, 8)
        meter.update(StepStatistics({"all": moments}, {"total": ["all"]}), 8)
        if not controller.due(tokens, tokens + 8):
            continue
        reading = reading_of(meter)
        decision = controller.decide(tokens + 8, reading)
        if not reading.determined:
            undetermined += 1
            assert (decision.action, decision.reason) == ("hold", "undetermined")
            assert math.isnan(decision.target)
    assert undetermined > 10


def test_levels_of_the_specification() -> None:
    assert batch_sizes(rules(maximum="512 sequences"), 8) == tuple(
        8 * k for k in (1, 2, 3, 4, 6, 8, 12, 16, 23, 32, 46, 64)
    )
    assert (
        batch_sizes(rules(level_ratio=2.0, maximum="100 sequences", quantum="4 sequences"), 4)[-1]
        == 100
    )


def test_a_decision_waits_for_the_warm_up_and_for_the_averages() -> None:
    controller = BatchController(rules(), 8, 100, warmup_tokens=1000)
    sure = Reading(500, 400, 600)
    assert not controller.due(940, 960)
    assert controller.due(990, 1006)
    assert controller.decide(1006, sure).after == 16
    held = controller.decide(1100, sure)
    assert (held.after, held.reason) == (16, "changed lately")
    assert controller.decide(1206, sure).after == 32


def test_a_resumed_run_waits_as_long_for_the_averages() -> None:
    sure = Reading(500, 400, 600)
    before = BatchController(rules(), 8, 100, warmup_tokens=1000)
    assert before.decide(1006, sure).after == 16
    resumed = BatchController(rules(), 8, 100, warmup_tokens=1000)
    resumed.load_state(json.loads(json.dumps(before.state())))
    held = resumed.decide(1100, sure)
    assert (held.after, held.reason) == (16, "changed lately")
    assert resumed.decide(1206, sure).after == 32


def test_it_is_raised_on_the_low_end_and_lowered_on_the_high_end_only() -> None:
    def after(level: int, reading: Reading) -> int:
        controller = BatchController(rules(monotone=False, level_ratio=2.0), 8, 10, 0)
        controller.load_state({"sequences": level, "last_change": 0})
        return controller.decide(100, reading).after

    # Levels 8, 16, 32, ...: a band across a level changes nothing.
    assert after(16, Reading(100, 31, 200)) == 16
    assert after(16, Reading(100, 32, 200)) == 32
    assert after(16, Reading(4, 2, 6.5)) == 16  # not below 8 by a fifth
    assert after(16, Reading(4, 2, 6.3)) == 8
    assert after(32, Reading(4, 2, 13)) == 32
    assert after(32, Reading(4, 2, 12.7)) == 16


def test_the_learning_rate_follows_up_to_twofold() -> None:
    controller = BatchController(rules(max_factor=100.0), 8, 10, warmup_tokens=0)
    assert controller.learning_rate_factor == 1
    controller.decide(100, Reading(16, 16, 16))
    assert controller.learning_rate_factor == pytest.approx(math.sqrt(2))
    controller.decide(200, Reading(512, 512, 512))
    assert (controller.sequences, controller.learning_rate_factor) == (512, 2.0)
    assert controller.decide(300, Reading(1e9, 1e9, 1e9)).target == controller.levels[-1]


def test_time_weighs_in_what_a_step_costs() -> None:
    controller = BatchController(rules(objective="time"), 8, 10, warmup_tokens=0)
    held = controller.decide(100, Reading(100, 100, 100), overhead=0.5)
    assert held.target == held.after == 8  # the smallest batch; the root of 50 is less
    raised = controller.decide(200, Reading(100, 100, 100), overhead=4.0)
    assert raised.target == pytest.approx(20) and raised.after == 16


def test_another_quantum_begins_at_the_level_below() -> None:
    before = BatchController(rules(), 8, 10, warmup_tokens=0)
    before.load_state({"sequences": 128, "last_change": 40})
    assert before.sequences == 128
    after = BatchController(rules(), 24, 10, warmup_tokens=0)
    after.load_state(before.state())
    assert after.sequences in after.levels and after.sequences <= 128
    assert after.sequences % 24 == 0


readings = st.builds(
    lambda low, more, most: Reading(low + more, low, low + more + most),
    st.one_of(st.just(math.nan), st.floats(0.01, 1e5)),
    st.floats(0, 1e3),
    st.one_of(st.just(math.inf), st.floats(0, 1e4)),
)
some_rules = st.builds(
    lambda quantum, least, most, ratio, gain, factor, monotone: rules(
        minimum=f"{quantum * min(least, most)} sequences",
        maximum=f"{quantum * max(least, most)} sequences",
        quantum=f"{quantum} sequences",
        level_ratio=ratio,
        gain=gain,
        max_factor=factor,
        monotone=monotone,
    ),
    st.integers(1, 9),
    st.integers(1, 40),
    st.integers(1, 400),
    st.floats(1.01, 4),
    st.floats(0.01, 10),
    st.floats(1.01, 8),
    st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(some_rules, st.lists(readings, max_size=30), st.integers(0, 29))
def test_batches_keep_their_bounds_and_resume_identically(
    chosen: NoiseScaleBatch, read: list[Reading], stop: int
) -> None:
    quantum = chosen.quantum_sequences
    least, most = (int(Fraction(a.value)) for a in (chosen.minimum, chosen.maximum))

    def made() -> BatchController:
        return BatchController(chosen, quantum, 10, warmup_tokens=0)

    controller, other = made(), made()
    batches = []
    for index, reading in enumerate(read):
        before = controller.sequences
        decision = controller.decide(40 * (index + 1), reading)
        if index == stop:
            state = json.loads(json.dumps(other.state()))
            other = made()
            other.load_state(state)
        assert other.decide(40 * (index + 1), reading) == decision or math.isnan(decision.target)
        assert other.sequences == controller.sequences == decision.after
        assert decision.before == before
        assert decision.after % quantum == 0 and least <= decision.after <= most
        if chosen.monotone:
            assert decision.after >= before
        if math.isnan(reading.low):
            assert decision.after == before
        place = controller.levels.index(before)
        upper = controller.levels[min(place + 1, len(controller.levels) - 1)]
        assert decision.after <= max(upper, chosen.max_factor * before)
        batches.append(decision.after)
    assert len({*controller.levels}) == len(controller.levels)


def test_a_half_life_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="half-life must be positive"):
        BatchController(rules(), 8, 0, warmup_tokens=0)
    with pytest.raises(UserError, match="no multiple of 600 sequences is between"):
        batch_sizes(rules(), 600)
