"""Random numbers of torchvision's transforms, drawn from a stream of their own.

The transforms draw from torch's global generator, which all threads of a process share. Within
``OwnStream`` each drawing function of torch is given another generator instead. This holds for one
thread only, so that threads that augment images draw independently, and without waiting.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

DRAWING: frozenset[Callable[..., Any]] = frozenset(
    {
        torch.rand,
        torch.randn,
        torch.randint,
        torch.randperm,
        torch.multinomial,
        torch.bernoulli,
        torch._sample_dirichlet,  # torch.distributions.Beta
        Tensor.uniform_,
        Tensor.normal_,
    }
)
"""The functions that draw. A test holds that no transform in use moves the global generator."""


class OwnStream(TorchFunctionMode):
    """Within the block, torch draws on a processor from the stream of ``seed``."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call ``func``, with this stream's generator where it draws."""
        named = kwargs or {}
        if func in DRAWING:
            named = {**named, "generator": self._generator}
        return func(*args, **named)
