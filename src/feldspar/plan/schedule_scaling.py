"""Scale a compiled schedule to another number of tokens, and write it as an override."""

from collections.abc import Iterator

from feldspar.core.errors import UserError
from feldspar.recipe.schedules import CompiledSchedule, Piece


def scaled_schedule(
    key: str,
    schedule: CompiledSchedule,
    old_tokens: int,
    new_tokens: int,
    warmup_steps: int | None,
    step_tokens: int,
) -> Iterator[str]:
    """Return the override ``key=[...]`` that gives the same curve over ``new_tokens``.

    A rise at the beginning takes ``warmup_steps`` where given. The other segments keep their
    proportions in the rest. A constant needs no override. Raises UserError for a schedule that
    extends beyond its phase.
    """
    pieces = schedule.pieces
    if pieces[-1].end_position > old_tokens:
        raise UserError(
            f"{key}: this schedule extends beyond its phase and cannot be scaled to another length",
            do="write a schedule that ends with its phase",
        )
    if len(pieces) == 1 and pieces[0].shape == "hold":
        return
    segments = []
    old_start = new_start = 0
    if warmup_steps and schedule.warmup_length:
        segments.append(_segment(pieces[0], f"{warmup_steps} steps", first=True))
        old_start, new_start = pieces[0].end_position, warmup_steps * step_tokens
        pieces = pieces[1:]
    scale = (new_tokens - new_start) / max(old_tokens - old_start, 1)
    for index, piece in enumerate(pieces):
        length = int((piece.end_position - piece.start_position) * scale)
        over = "rest" if index == len(pieces) - 1 else f"{length} tokens"
        segments.append(_segment(piece, over, first=not segments))
    yield f"{key}=[{', '.join(segments)}]"


def _segment(piece: Piece, over: str, first: bool) -> str:
    """Return a segment as YAML."""
    parts = []
    if first and piece.start_value and piece.shape != "hold":
        parts.append(f"from: {piece.start_value!r}")
    if piece.shape != "inverse_sqrt":
        parts.append(f"to: {piece.end_value!r}")
    parts.append(f"over: {over}")
    if piece.shape != "linear":
        parts.append(f"shape: {piece.shape}")
    return "{" + ", ".join(parts) + "}"
