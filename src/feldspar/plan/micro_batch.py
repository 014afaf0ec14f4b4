"""How many sequences one process computes at a time, as far as it can be told without a device."""

from collections.abc import Callable

from feldspar.core.errors import UserError

CPU_TOKENS = 4096
"""On a CPU memory is no limit; more tokens at a time only leave the caches."""


def check_divides(global_sequences: int, world_size: int, key: str) -> None:
    """Raise UserError when a step's sequences do not divide among the processes."""
    if global_sequences % world_size:
        low = global_sequences // world_size * world_size
        raise UserError(
            f"{key}: {global_sequences} sequences do not divide among {world_size} processes",
            allowed=f"{low} or {low + world_size}" if low else str(world_size),
        )


def cpu_micro_batch(share_sequences: int, context_length: int) -> int:
    """Return the sequences that a processor takes of a process's share of a step."""
    return max(1, min(share_sequences, CPU_TOKENS // context_length))


def largest_micro_batch(share_sequences: int, fits: Callable[[int], bool]) -> int | None:
    """Return the largest of the share, half of it, a quarter, ... that fits; None when not even 1
    does.
    """
    candidate = share_sequences
    while candidate:
        if fits(candidate):
            return candidate
        candidate //= 2
    return None
