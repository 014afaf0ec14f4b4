"""Activations take no more memory in a deeper chain; they do when they are stored."""

import torch

from feldspar.plan.storage_bytes import peak_bytes
from tests.reversible.chains import chain_of, weighted_sum


def step_bytes(depth: int, mode: str) -> int:
    """Peak of a forward and backward pass, gradients of the parameters left out."""
    chain = chain_of(depth, torch.float32)
    chain.memory = mode
    x = torch.randn(2, 6, 32, 32)
    measured = peak_bytes(lambda: weighted_sum(chain(x)).backward())
    return measured - sum(4 * parameter.numel() for parameter in chain.parameters())


def test_memory_does_not_grow_with_depth_unless_stored():
    shallow, deep = (step_bytes(depth, "reversible") for depth in (2, 32))
    assert deep <= 1.01 * shallow
    stored_shallow, stored_deep = (step_bytes(depth, "store") for depth in (2, 32))
    assert stored_deep >= 8 * stored_shallow
    assert shallow < stored_shallow
    recomputed = step_bytes(32, "recompute")
    assert deep < recomputed < stored_deep / 2


def test_what_is_measured_is_what_lives():
    kept = []

    def run() -> None:
        kept.append(torch.zeros(1000))
        for _ in range(5):
            torch.zeros(500)

    assert peak_bytes(run) == 6000
