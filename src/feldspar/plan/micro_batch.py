"""The number of sequences that one process computes at a time, as far as it is known in advance."""

from collections.abc import Callable

from feldspar.core.errors import UserError

CPU_TOKENS = 4096
"""Tokens at a time on a processor. More tokens would only leave the caches."""


def check_divides(global_sequences: int, world_size: int, key: str) -> None:
    """Raise UserError when a step's sequences do not divide among the processes."""
    if global_sequences % world_size:
        low = global_sequences // world_size * world_size
        raise UserError(
            f"{key}: {global_sequences} sequences do not divide among {world_size} processes",
            allowed=f"{low} or {low + world_size}" if low else str(world_size),
        )


def cpu_micro_batch(share_sequences: int, context_length: int) -> int:
    """Return the micro-batch of a processor, out of a process's share of a step."""
    return max(1, min(share_sequences, CPU_TOKENS // context_length))


def largest_micro_batch(share_sequences: int, fits: Callable[[int], bool]) -> int | None:
    """Return the largest of share, share / 2, share / 4, ... that fits; None when not
    even 1 does.
    """
    candidate = share_sequences
    while candidate:
        if fits(candidate):
            return candidate
        candidate //= 2
    return None
