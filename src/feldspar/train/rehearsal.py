"""Run forward and backward passes without side effects, to time and to compare them."""

import hashlib
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn


def rehearse(model: nn.Module, passes: Callable[[], Tensor]) -> tuple[float, str | None]:
    """Run ``passes``, which return the loss; restore gradients, buffers and random numbers.

    Returns the seconds, and a digest of the loss and of all gradients. The digest is None where a
    gradient is zero everywhere, because any method of computing could give zero.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = [parameter.grad for parameter in trained]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    random_state = torch.get_rng_state()
    _set_gradients(trained, [None] * len(trained))
    try:
        began = time.perf_counter()
        loss = passes()
        seconds = time.perf_counter() - began
        return seconds, _digest([loss.detach(), *(p.grad for p in trained if p.grad is not None)])
    finally:
        _set_gradients(trained, gradients)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        torch.set_rng_state(random_state)


def _set_gradients(parameters: list[nn.Parameter], gradients: list[Tensor | None]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


def _digest(tensors: list[Tensor]) -> str | None:
    digest = hashlib.sha256()
    for tensor in tensors:
        if not tensor.any():
            return None
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
