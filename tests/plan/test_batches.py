"""Batch schedules: steps and tokens convert exactly, compared with a walk step by step."""

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldspar.plan.batches import (
    Stretch,
    batch_levels,
    lay_out,
    length_of_sequences,
    position_at_step,
    step_at,
)
from feldspar.recipe.amounts import Amount
from feldspar.recipe.sections.batch import BatchByTokens, BatchRamp, ConstantBatch

Rule = Callable[[int, int], int]  # (steps, tokens) -> sequences


def walk(rule: Rule, context: int, tokens: int | None, steps: int | None) -> list[int]:
    """Sequences of each step, by asking the rule before each one."""
    sizes: list[int] = []
    seen = 0
    while steps is None or len(sizes) < steps:
        size = rule(len(sizes), seen)
        if tokens is not None and seen + size * context > tokens:
            break
        sizes.append(size)
        seen += size * context
    return sizes


def sizes_of(stretches: tuple[Stretch, ...]) -> list[int]:
    return [stretch.sequences for stretch in stretches for _ in range(stretch.steps)]


def check(stretches: tuple[Stretch, ...], expected: list[int], context: int) -> None:
    """All conversions agree with the walk's sizes."""
    assert sizes_of(stretches) == expected
    positions = [0]
    for size in expected:
        positions.append(positions[-1] + size * context)
    assert [position_at_step(stretches, step) for step in range(len(positions))] == positions
    for step, (position, following) in enumerate(pairwise(positions)):
        for tokens in {position, (position + following) // 2, following - 1}:
            assert step_at(stretches, tokens) == step
    assert step_at(stretches, positions[-1]) == len(expected)
    for earlier, later in pairwise(stretches):
        assert earlier.end_position == later.start_position


def by_tokens(levels: list[tuple[int, int]], unit: str) -> BatchByTokens:
    return BatchByTokens.model_validate(
        {
            "type": "by_tokens",
            "levels": [
                {"from": Amount.parse(f"{start} {unit}"), "sequences": size}
                for start, size in levels
            ],
        }
    )


def ramp(start: int, end: int, quantum: int, over: int) -> BatchRamp:
    return BatchRamp.model_validate(
        {
            "type": "linear_ramp",
            "from": Amount.parse(f"{start} sequences"),
            "to": Amount.parse(f"{end} sequences"),
            "quantum": Amount.parse(f"{quantum} sequences"),
            "over": Amount.parse(f"{over} tokens"),
        }
    )


LIMITS = st.tuples(st.booleans(), st.integers(1, 60))


def laid_out(
    batch: ConstantBatch | BatchByTokens | BatchRamp, context: int, limit: tuple[bool, int]
) -> tuple[tuple[Stretch, ...], int | None, int | None]:
    counts_steps, amount = limit
    steps = amount if counts_steps else None
    tokens = None if counts_steps else amount * context * 3
    levels = batch_levels(batch, context, "batch")
    return lay_out(levels, context, limit_length=tokens, limit_steps=steps), tokens, steps


@given(st.integers(1, 5), st.integers(1, 4), LIMITS)
def test_constant(sequences: int, context: int, limit: tuple[bool, int]) -> None:
    stretches, tokens, steps = laid_out(ConstantBatch(sequences=sequences), context, limit)
    expected = walk(lambda step, seen: sequences, context, tokens, steps)
    if expected:
        check(stretches, expected, context)
    else:
        assert stretches == ()


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 6)), min_size=1, max_size=5),
    st.sampled_from(["steps", "tokens"]),
    st.integers(1, 4),
    LIMITS,
)
def test_levels(
    gaps: list[tuple[int, int]], unit: str, context: int, limit: tuple[bool, int]
) -> None:
    starts = [sum(gap for gap, _ in gaps[:index]) for index in range(len(gaps))]
    levels = [(start, size) for start, (_, size) in zip(starts, gaps, strict=True)]

    def rule(step: int, seen: int) -> int:
        position = step if unit == "steps" else seen
        return [size for start, size in levels if start <= position][-1]

    stretches, tokens, steps = laid_out(by_tokens(levels, unit), context, limit)
    expected = walk(rule, context, tokens, steps)
    if expected:
        check(stretches, expected, context)
    else:
        assert stretches == ()


@given(
    st.integers(1, 3),
    st.integers(0, 6),
    st.integers(1, 3),
    st.integers(1, 200),
    st.integers(1, 4),
    LIMITS,
)
def test_ramp(
    start: int, rise: int, quantum: int, over: int, context: int, limit: tuple[bool, int]
) -> None:
    first, last = start * quantum, (start + rise) * quantum

    def rule(step: int, seen: int) -> int:
        line = first + (last - first) * min(Fraction(seen, over), Fraction(1))
        return math.ceil(line / quantum) * quantum

    stretches, tokens, steps = laid_out(ramp(first, last, quantum, over), context, limit)
    expected = walk(rule, context, tokens, steps)
    if expected:
        check(stretches, expected, context)
    else:
        assert stretches == ()


def test_the_open_loop_ramp_of_the_noise_scale_paper() -> None:
    levels = batch_levels(ramp(16, 120, 8, 2_219_950_080), 2048, "batch")
    stretches = lay_out(levels, 2048, limit_steps=18_953)
    sizes = sizes_of(stretches)
    assert len(sizes) == 18_953
    assert stretches[-1].end_position == 2_220_179_456
    assert sizes[:3] == [16, 24, 24] and sizes[-1] == 120
    assert sum(sizes) / len(sizes) == pytest.approx(57.198, abs=5e-4)
    # The paper's loop runs while fewer than D_max tokens were seen.
    assert (
        position_at_step(stretches, 18_952) < 2_219_950_080 <= position_at_step(stretches, 18_953)
    )


def test_past_the_end_the_last_size_goes_on() -> None:
    levels = batch_levels(by_tokens([(0, 1), (2, 3)], "steps"), 10, "batch")
    stretches = lay_out(levels, 10, limit_steps=4)
    assert position_at_step(stretches, 6) == 80 + 60
    assert step_at(stretches, 140) == 6


@given(st.integers(0, 8), st.integers(0, 20))
def test_sequences_become_tokens_where_they_are(start_sequence: int, sequences: int) -> None:
    # Two steps of 2 sequences of 5 tokens, then steps of 3 sequences of 10 tokens.
    stretches = (Stretch(0, 0, 2, 2, 10), Stretch(2, 20, 3, 3, 30))
    lengths = [5] * 4 + [10] * 60
    start = sum(lengths[:start_sequence])
    expected = sum(lengths[start_sequence : start_sequence + sequences])
    assert length_of_sequences(stretches, start, sequences) == expected
