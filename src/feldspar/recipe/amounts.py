"""Amounts with units: ``2e9 tokens``, ``500 steps``, ``20 tokens_per_parameter``, ``rest``."""

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

from feldspar.core.errors import UserError, nearest


class Unit(StrEnum):
    """Unit of an amount."""

    TOKENS = "tokens"
    STEPS = "steps"
    SEQUENCES = "sequences"
    IMAGES = "images"
    EPOCHS = "epochs"
    TOKENS_PER_PARAMETER = "tokens_per_parameter"
    PERCENT_OF_RUN = "% of run"
    PERCENT_OF_PHASE = "% of phase"
    REST = "rest"


RELATIVE_UNITS = frozenset({Unit.PERCENT_OF_RUN, Unit.PERCENT_OF_PHASE, Unit.REST})

LARGEST_EXPONENT = 24
"""Amounts lie between 1e-24 and 1e24. That is enough for any run, and such numbers are cheap to
turn into integers."""

_PATTERN = re.compile(r"\s*([-+]?[0-9._]+(?:[eE][-+]?[0-9]+)?)\s*(%?\s*[a-z][a-z_ ]*)\s*")
_EXAMPLES = "2e9 tokens, 500 steps, 1920 sequences, 3 epochs, 20 tokens_per_parameter, 1% of run"


@dataclass(frozen=True)
class Amount:
    """A number with a unit; ``rest`` has no number."""

    value: Decimal
    unit: Unit

    def __str__(self) -> str:
        if self.unit is Unit.REST:
            return "rest"
        number = f"{self.value:f}" if self.value < 10**7 else f"{self.value:E}"
        mantissa, exponent_mark, exponent = number.partition("E")
        if "." in mantissa:
            mantissa = mantissa.rstrip("0").rstrip(".")
        number = mantissa + exponent_mark + exponent
        return f"{number}{self.unit}" if self.unit.startswith("%") else f"{number} {self.unit}"

    @property
    def relative(self) -> bool:
        """True if the amount is a share of a run or phase."""
        return self.unit in RELATIVE_UNITS

    @classmethod
    def parse(cls, text: str) -> "Amount":
        """Read an amount. Raises UserError that names the units."""
        if text.strip() == "rest":
            return cls(Decimal(0), Unit.REST)
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise UserError(f"{text!r} is not an amount with a unit", allowed=_EXAMPLES)
        unit_text = re.sub(r"\s+", " ", match[2].replace("%", "% ")).strip()
        units = {unit.value: unit for unit in Unit if unit is not Unit.REST}
        if unit_text not in units:
            hint = nearest(unit_text, units)
            raise UserError(
                f"{text!r} has the unknown unit {unit_text!r}"
                + (f"; did you mean {hint!r}?" if hint else ""),
                allowed=units,
            )
        try:
            value = Decimal(match[1].replace("_", ""))
        except InvalidOperation:
            raise UserError(f"{text!r} does not start with a number", allowed=_EXAMPLES) from None
        if not value.is_finite() or value < 0:
            raise UserError(f"the amount {text!r} must be a finite number of at least 0")
        if value and abs(value.adjusted()) > LARGEST_EXPONENT:
            raise UserError(
                f"the amount {text!r} is too large or too small; its power of "
                f"ten must be from -{LARGEST_EXPONENT} to {LARGEST_EXPONENT}",
                allowed=_EXAMPLES,
            )
        return cls(value, units[unit_text])

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Build the validator from text; amounts are written back as text."""
        return core_schema.no_info_plain_validator_function(
            cls._validate,
            serialization=core_schema.plain_serializer_function_ser_schema(str),
            json_schema_input_schema=core_schema.str_schema(
                metadata={"pydantic_js_updates": {"format": "amount"}}
            ),
        )

    @classmethod
    def _validate(cls, value: Any) -> "Amount":
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return cls.parse(value)
        raise UserError(f"{value!r} needs a unit", allowed=_EXAMPLES)
