"""Amounts: text to number and unit, and back."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldspar.core.errors import UserError
from feldspar.recipe.amounts import Amount, Unit
from feldspar.recipe.base import Settings

NUMBERED_UNITS = [unit for unit in Unit if unit is not Unit.REST]


class Holder(Settings):
    """A section with an amount."""

    length: Amount


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("2e9 tokens", 2 * 10**9, Unit.TOKENS),
        ("500 steps", 500, Unit.STEPS),
        ("500steps", 500, Unit.STEPS),
        ("1_920 sequences", 1920, Unit.SEQUENCES),
        ("3 epochs", 3, Unit.EPOCHS),
        ("3epochs", 3, Unit.EPOCHS),
        ("20 tokens_per_parameter", 20, Unit.TOKENS_PER_PARAMETER),
        ("1% of run", 1, Unit.PERCENT_OF_RUN),
        ("0.5 %  of  run", Decimal("0.5"), Unit.PERCENT_OF_RUN),
        (" 10% of phase ", 10, Unit.PERCENT_OF_PHASE),
        ("rest", 0, Unit.REST),
        ("330E9 tokens", 330 * 10**9, Unit.TOKENS),
        ("104.8576e9 tokens", 104_857_600_000, Unit.TOKENS),
    ],
)
def test_every_way_of_writing_one(text: str, value: int | Decimal, unit: Unit) -> None:
    assert Amount.parse(text) == Amount(Decimal(value), unit)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "not an amount"),
        ("5", "not an amount"),
        ("tokens", "not an amount"),
        ("nan tokens", "not an amount"),
        ("1..2 tokens", "does not start with a number"),
        ("_ tokens", "does not start with a number"),
        ("5 tokenz", "did you mean 'tokens'"),
        ("5 furlongs", "unknown unit 'furlongs'"),
        ("5 rest", "unknown unit 'rest'"),
        ("5 %", "not an amount"),
        ("-1 steps", "at least 0"),
        ("1e999999999 tokens", "is too large or too small"),
        ("1e-999999999 tokens", "is too large or too small"),
    ],
)
def test_what_is_no_amount(text: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        Amount.parse(text)


@given(
    st.decimals(min_value=0, max_value=10**24, allow_nan=False, allow_infinity=False, places=9)
    | st.integers(0, 10**20).map(Decimal)
    | st.sampled_from([Decimal("0E+5"), Decimal("1E-9"), Decimal("1.50E+8")]),
    st.sampled_from(NUMBERED_UNITS),
)
def test_text_round_trip(value: Decimal, unit: Unit) -> None:
    amount = Amount(value, unit)
    assert Amount.parse(str(amount)) == amount


def test_text_is_short() -> None:
    texts = ["2E+9 tokens", "1.5% of run", "10% of phase", "rest", "3.71E+11 tokens", "100 steps"]
    assert [str(Amount.parse(text)) for text in texts] == texts


def test_a_section_takes_text_and_gives_text() -> None:
    holder = Holder.model_validate_json('{"length": "2e9 tokens"}')
    assert holder.model_dump(mode="json") == {"length": "2E+9 tokens"}
    assert Holder.model_validate_json(holder.model_dump_json()) == holder
    assert Holder.model_json_schema()["properties"]["length"]["type"] == "string"


@pytest.mark.parametrize("value", ["5", "true", "null", "[1]", '"5"'])
def test_a_section_wants_a_unit(value: str) -> None:
    with pytest.raises(ValueError, match="unit"):
        Holder.model_validate_json(f'{{"length": {value}}}')


def test_relative() -> None:
    texts = ["1% of run", "1% of phase", "rest", "5 steps", "3 epochs"]
    assert [Amount.parse(text).relative for text in texts] == [True, True, True, False, False]
