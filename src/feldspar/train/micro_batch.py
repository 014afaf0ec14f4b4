"""The number of sequences that one process computes at a time, found by trial on a GPU."""

from collections.abc import Callable

import torch

from feldspar.core.errors import SetupError
from feldspar.plan.batches import cpu_micro_batch, largest_micro_batch
from feldspar.runtime.collectives import any_process


def choose_micro_batch(
    share_sequences: int,
    context_length: int,
    device: torch.device,
    attempt: Callable[[int], None],
) -> int:
    """Find the largest number of sequences that fits, at most a process's share of a step.

    On CUDA ``attempt(n)`` runs forward and backward of n sequences and may run out of memory. Each
    process tries the same numbers and waits for the others after each. A number counts as fitting
    only if it fits on all processes. Raises SetupError when not even one sequence fits.
    """
    if device.type != "cuda":
        return cpu_micro_batch(share_sequences, context_length)

    def fits(sequences: int) -> bool:
        failed = False
        try:
            attempt(sequences)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            failed = True
        return not any_process(failed)

    chosen = largest_micro_batch(share_sequences, fits)
    if chosen is None:
        raise SetupError(
            f"not even one sequence of {context_length} tokens fits into the device's memory",
            do="set runtime.activation_memory=recompute, or use more devices with fsdp",
        )
    return chosen
