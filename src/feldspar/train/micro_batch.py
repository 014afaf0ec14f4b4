"""How many sequences one process computes at a time."""

from collections.abc import Callable

import torch

from feldspar.core.errors import SetupError, UserError

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


def choose_micro_batch(
    share_sequences: int,
    context_length: int,
    device: torch.device,
    attempt: Callable[[int], None],
) -> int:
    """The largest number of sequences that fits, at most a process's share of a step.

    On CUDA ``attempt(n)`` runs forward and backward of n sequences and may run out of memory.
    Raises SetupError when not even one fits.
    """
    if device.type != "cuda":
        return max(1, min(share_sequences, CPU_TOKENS // context_length))
    candidate = share_sequences
    while candidate:
        try:
            attempt(candidate)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            candidate = candidate // 2
        else:
            return candidate
    raise SetupError(
        f"not even one sequence of {context_length} tokens fits into the device's memory",
        do="set runtime.activation_memory=recompute, or use more devices with fsdp",
    )
