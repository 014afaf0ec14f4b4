"""Schedules: a value for each position in a run, given as segments.

A position counts tokens or images; a length is a difference of positions.
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from feldspar.core.errors import UserError
from feldspar.recipe.amounts import Amount, Unit
from feldspar.recipe.base import Settings

Shape = Literal["linear", "cosine", "inverse_sqrt", "hold"]


class Segment(Settings):
    """One segment of a schedule."""

    to: float | None = None
    """Value at the end. For hold: the value that is kept (default: the one reached). Not for
    inverse_sqrt."""
    over: Amount
    """Length of the segment."""
    shape: Shape = "linear"
    """Curve between the values."""
    from_: Annotated[float | None, Field(alias="from")] = None
    """Value at the start; for the first segment only (default: 0)."""


class Schedule(Settings):
    """A list of segments; a bare number is a constant."""

    segments: Annotated[tuple[Segment, ...], Field(min_length=1)]
    """The segments in order."""
    extends_beyond_phase: bool = False
    """Allow the last segment to end after the phase; the phase then stops before the segment's end.
    """


def constant(value: float) -> Schedule:
    """Return the schedule that stays at ``value``."""
    return Schedule(segments=(Segment(to=value, over=Amount.parse("rest"), shape="hold"),))


def _spell_out(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | list | tuple):
        return value
    if isinstance(value, int | float):
        return constant(float(value))
    return {"segments": tuple(value)}


ScheduleField = Annotated[Schedule, BeforeValidator(_spell_out)]
"""Schedule as written in a recipe: a number, a list of segments, or the full mapping."""


@dataclass(frozen=True)
class Piece:
    """A segment between two positions."""

    start_position: int
    end_position: int
    shape: Shape
    start_value: float
    end_value: float

    def at(self, position: int) -> float:
        """Return the value at a position within the piece."""
        if self.shape == "hold":
            return self.end_value
        if self.shape == "inverse_sqrt":
            return self.start_value * math.sqrt(self.start_position / max(position, 1))
        if position >= self.end_position:
            return self.end_value
        share = (position - self.start_position) / (self.end_position - self.start_position)
        if self.shape == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return self.start_value + (self.end_value - self.start_value) * share


@dataclass(frozen=True)
class CompiledSchedule:
    """The pieces of a schedule, in order."""

    pieces: tuple[Piece, ...]

    def at(self, position: int) -> float:
        """Return the value at a position; where two pieces meet, the first one's end value."""
        index = bisect_left(self.pieces, position, key=lambda piece: piece.end_position)
        return self.pieces[min(index, len(self.pieces) - 1)].at(position)

    @property
    def warmup_length(self) -> int:
        """Length of the first segment if it rises, else 0."""
        first = self.pieces[0]
        return first.end_position if first.end_value > first.start_value else 0


def compile_schedule(
    schedule: Schedule,
    length: int,
    measure: Callable[[Amount, int], int],
    name: str,
    unit: str = "tokens",
) -> CompiledSchedule:
    """Turn a schedule's segments into pieces that cover ``length`` positions.

    ``measure(amount, start)`` returns the length of an amount that begins at position ``start``.
    Errors use ``name`` (a key of the recipe) and the ``unit`` of positions. Raises UserError when
    the segments end too early, or end after ``length`` without ``extends_beyond_phase``.
    """
    pieces: list[Piece] = []
    position = 0
    value = 0.0
    last = len(schedule.segments) - 1
    for index, segment in enumerate(schedule.segments):
        key = f"{name}.{index}"
        _check_segment(segment, index, key)
        if segment.from_ is not None:
            value = segment.from_
        end = position + measure(segment.over, position)
        if end > length:
            if index == last and segment.over.relative:
                end = length
            elif not (index == last and schedule.extends_beyond_phase):
                raise UserError(
                    f"{key}: the segment ends after {end:,} {unit}, past the end at {length:,}",
                    do="shorten it, write `over: rest`, or set extends_beyond_phase: true",
                )
        if segment.shape == "inverse_sqrt" and position == 0:
            raise UserError(f"{key}: inverse_sqrt cannot start at position 0; warm up first")
        piece = _piece(segment, position, end, value)
        if end > position or index == last:
            pieces.append(piece)
        value = piece.at(end)
        position = end
    if position < length:
        raise UserError(
            f"{name}: the segments end after {position:,} of {length:,} {unit}",
            do="add {shape: hold, over: rest} to stay at the last value",
        )
    return CompiledSchedule(tuple(pieces))


def _check_segment(segment: Segment, index: int, key: str) -> None:
    if segment.over.unit is Unit.EPOCHS:
        raise UserError(
            f"{key}.over: a schedule cannot use epochs, found {segment.over}",
            allowed="tokens, steps, sequences, tokens_per_parameter, % of run, % of phase, rest",
        )
    if segment.from_ is not None and index > 0:
        raise UserError(f"{key}.from: only the first segment may have it; remove it")
    if segment.shape == "inverse_sqrt" and segment.to is not None:
        raise UserError(f"{key}.to: inverse_sqrt has no end value; remove it")
    if segment.shape in ("linear", "cosine") and segment.to is None:
        raise UserError(f"{key}.to: a {segment.shape} segment needs its end value")


def _piece(segment: Segment, start: int, end: int, value: float) -> Piece:
    if segment.shape == "hold":
        kept = value if segment.to is None else segment.to
        return Piece(start, end, "hold", kept, kept)
    if segment.shape == "inverse_sqrt":
        return Piece(start, end, "inverse_sqrt", value, value * math.sqrt(start / max(end, 1)))
    assert segment.to is not None, "checked by _check_segment"
    return Piece(start, end, segment.shape, value, segment.to)
