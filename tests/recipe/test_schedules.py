"""Every schedule equals a look-up that walks its segments token by token."""

import json
import math
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldspar.core.errors import UserError
from feldspar.recipe.amounts import Amount, Unit
from feldspar.recipe.base import Settings
from feldspar.recipe.schedules import (
    CompiledSchedule,
    Schedule,
    ScheduleField,
    compile_schedule,
    constant,
)


class Holder(Settings):
    """A section with a schedule."""

    rate: ScheduleField


def schedule(text: str) -> Schedule:
    return Holder.model_validate_json(f'{{"rate": {text}}}').rate


def compiled(text: str, total: int) -> CompiledSchedule:
    return compile_schedule(schedule(text), total, measure_tokens(total), "rate")


def measure_tokens(total: int) -> Callable[[Amount, int], int]:
    def measure(amount: Amount, start: int) -> int:
        if amount.unit is Unit.REST:
            return total - start
        if amount.unit is Unit.PERCENT_OF_RUN:
            return int(amount.value * total / 100)
        return int(amount.value)

    return measure


Brute = list[tuple[str, float | None, int]]


def look_up(segments: Brute, first: float, tokens: int) -> float:
    """The value after ``tokens``, by the definition: each segment is (shape, to, length)."""
    value, start = first, 0
    for index, (shape, to, length) in enumerate(segments):
        end = start + length
        inside = start < tokens <= end or (index == 0 and tokens == 0 and length > 0)
        at = tokens if inside else end
        if shape == "hold":
            reached = value if to is None else to
        elif shape == "inverse_sqrt":
            reached = value * math.sqrt(start / at)
        else:
            assert to is not None
            share = (at - start) / length if length else 1.0
            if shape == "cosine":
                share = 0.5 - 0.5 * math.cos(math.pi * share)
            reached = value + (to - value) * share
        if inside:
            return reached
        value, start = reached, end
    return value


VALUES = st.floats(-2, 2).map(lambda value: round(value, 3))


@st.composite
def segment_lists(draw: st.DrawFn) -> tuple[Brute, float]:
    """Segments of 0 to 9 tokens, an inverse square root only once tokens were seen."""
    segments: Brute = []
    position = 0
    for index in range(draw(st.integers(1, 6))):
        shapes = ["linear", "cosine", "hold", *(["inverse_sqrt"] if position else [])]
        shape = draw(st.sampled_from(shapes))
        to = None if shape == "inverse_sqrt" else draw(VALUES)
        if shape == "hold" and draw(st.booleans()):
            to = None
        length = draw(st.integers(1 if index == 0 else 0, 9))
        segments.append((shape, to, length))
        position += length
    return segments, draw(VALUES)


@given(segment_lists())
def test_every_schedule_equals_the_look_up(case: tuple[Brute, float]) -> None:
    segments, first = case
    described = [
        {"shape": shape, "over": f"{length} tokens"} | ({} if to is None else {"to": to})
        for shape, to, length in segments
    ]
    described[0]["from"] = first
    total = sum(length for _, _, length in segments)
    parsed = schedule(json.dumps(described))
    result = compile_schedule(parsed, total, measure_tokens(total), "rate")
    for tokens in range(total + 1):
        assert result.at(tokens) == pytest.approx(look_up(segments, first, tokens), abs=1e-12)


def test_a_number_is_a_constant() -> None:
    assert schedule("0.5") == constant(0.5)
    assert [compiled("0.5", 10).at(tokens) for tokens in (0, 5, 10)] == [0.5] * 3
    assert compiled("0.5", 10).warmup_length == 0


def test_linear_warm_up_and_decay() -> None:
    rate = compiled('[{"to": 1, "over": "4 tokens"}, {"to": 0.2, "over": "rest"}]', 12)
    assert [rate.at(tokens) for tokens in (0, 1, 4, 8, 12)] == pytest.approx([0, 0.25, 1, 0.6, 0.2])
    assert rate.at(12) == 0.2 and rate.at(4) == 1
    assert rate.warmup_length == 4


def test_warm_up_stable_decay() -> None:
    text = (
        '[{"to": 1, "over": "10% of run"}, {"shape": "hold", "over": "70% of run"},'
        '{"to": 0, "over": "20% of run", "shape": "cosine"}]'
    )
    rate = compiled(text, 100)
    assert [rate.at(tokens) for tokens in (5, 10, 11, 50, 80)] == [0.5, 1, 1, 1, 1]
    assert rate.at(90) == pytest.approx(0.5) and rate.at(100) == 0


def test_inverse_square_root() -> None:
    rate = compiled(
        '[{"to": 1, "over": "4 tokens"}, {"shape": "inverse_sqrt", "over": "rest"}]', 64
    )
    assert [rate.at(tokens) for tokens in (4, 16, 64)] == [1, 0.5, 0.25]


def test_a_jump_comes_after_its_knot() -> None:
    stairs = ",".join(f'{{"shape": "hold", "to": {to}, "over": "5 tokens"}}' for to in (1, 3, 2))
    rate = compiled(f"[{stairs}]", 15)
    assert [rate.at(tokens) for tokens in (0, 5, 6, 10, 11, 15)] == [1, 1, 3, 3, 2, 2]


def test_an_empty_segment_jumps_at_once() -> None:
    rate = compiled('[{"to": 1, "over": "0 tokens"}, {"to": 0, "over": "rest"}]', 10)
    assert [rate.at(tokens) for tokens in (0, 5, 10)] == [1, 0.5, 0]


def test_a_last_share_stops_at_the_end() -> None:
    text = '[{"to": 1, "over": "60% of run"}, {"to": 0, "over": "60% of run"}]'
    assert compiled(text, 10).pieces[-1].end_position == 10
    assert compiled(text, 10).at(10) == 0


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('[{"to": 1, "over": "9 tokens"}]', "rate: the segments end after 9 of 10"),
        ('[{"to": 1, "over": "11 tokens"}]', "rate.0: the segment ends after 11"),
        ('[{"to": 1, "over": "11 tokens"}, {"to": 0, "over": "rest"}]', "rate.0: the segment ends"),
        ('[{"to": 1, "over": "rest"}, {"to": 0, "over": "1 tokens"}]', "rate.1: the segment ends"),
        ('[{"over": "rest"}]', "rate.0.to: a linear segment needs"),
        ('[{"over": "rest", "shape": "cosine"}]', "rate.0.to: a cosine segment needs"),
        ('[{"over": "rest", "shape": "inverse_sqrt"}]', "cannot start at position 0"),
        (
            '[{"to": 1, "over": "5 tokens"}, {"to": 1, "over": "rest", "shape": "inverse_sqrt"}]',
            "rate.1.to: inverse_sqrt has no end value",
        ),
        (
            '[{"to": 1, "over": "5 tokens"}, {"from": 1, "to": 1, "over": "rest"}]',
            "rate.1.from: only the first",
        ),
        (
            '[{"to": 1, "over": "3 epochs"}]',
            "rate.0.over: a schedule cannot use epochs, found 3 epochs",
        ),
    ],
)
def test_segments_that_do_not_fit(text: str, part: str) -> None:
    with pytest.raises(UserError) as caught:
        compiled(text, 10)
    assert caught.value.what.startswith(part) or part in caught.value.what


def test_reaching_beyond_the_end_must_be_said() -> None:
    text = '{"segments": [{"to": 1, "over": "20 tokens"}], "extends_beyond_phase": true}'
    assert compiled(text, 10).at(10) == 0.5
    text = text.replace("}]", '}, {"to": 0, "over": "1 tokens"}]')
    with pytest.raises(UserError, match=r"rate\.0"):
        compiled(text, 10)


@pytest.mark.parametrize("text", ["true", '"0.5"', "[]", "null", '[{"to": NaN, "over": "rest"}]'])
def test_what_is_no_schedule(text: str) -> None:
    with pytest.raises(ValueError, match="rate"):
        schedule(text)


def test_pieces_are_joined() -> None:
    rate = compiled('[{"to": 1, "over": "4 tokens"}, {"to": 0.2, "over": "rest"}]', 12)
    for earlier, later in pairwise(rate.pieces):
        assert (earlier.end_position, earlier.end_value) == (
            later.start_position,
            later.start_value,
        )
