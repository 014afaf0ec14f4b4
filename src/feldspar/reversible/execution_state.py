"""Restore autocast, RNG state and train/eval mode before recomputing a module."""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

META = "meta"
"""Device of tensors without values, for which nothing is cast or drawn."""


@dataclass(frozen=True)
class Autocast:
    """Autocast settings of each kind of device: on or off, and the type."""

    regions: tuple[tuple[str, bool, torch.dtype], ...]

    @classmethod
    def current(cls, device: torch.device) -> "Autocast":
        """Return the current settings of the processor and of ``device``."""
        kinds = sorted({"cpu", device.type} - {META})
        return cls(
            tuple(
                (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
                for kind in kinds
            )
        )

    @contextmanager
    def applied(self) -> Generator[None]:
        """Apply the settings, without the cache of casts: a cast without a graph must not be
        reused."""
        with ExitStack() as stack:
            for kind, enabled, dtype in self.regions:
                stack.enter_context(
                    torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=False)
                )
            yield


@dataclass(frozen=True)
class RandomState:
    """RNG states of the processor and of ``device`` if it is another."""

    device: torch.device
    states: tuple[Tensor, ...]

    @classmethod
    def current(cls, device: torch.device) -> "RandomState":
        """Return the current states."""
        states = [torch.get_rng_state()]
        if device.type not in ("cpu", META):
            states.append(torch.get_device_module(device).get_rng_state(device))
        return cls(device, tuple(states))

    def equals(self, other: "RandomState") -> bool:
        """Tell whether no random number was drawn between the two."""
        return all(map(torch.equal, self.states, other.states))

    def restore(self) -> None:
        """Restore these states."""
        torch.set_rng_state(self.states[0])
        if len(self.states) > 1:
            torch.get_device_module(self.device).set_rng_state(self.states[1], self.device)

    @contextmanager
    def applied(self) -> Generator[None]:
        """Draw from these states, and restore the current ones afterwards."""
        outside = RandomState.current(self.device)
        self.restore()
        try:
            yield
        finally:
            outside.restore()


@contextmanager
def modes_in_force(module: nn.Module, training: Sequence[bool]) -> Generator[None]:
    """Give each submodule its mode in ``training`` (in the order of ``modules()``) for a while."""
    outside = [part.training for part in module.modules()]
    _set_modes(module, training)
    try:
        yield
    finally:
        _set_modes(module, outside)


def _set_modes(module: nn.Module, training: Sequence[bool]) -> None:
    for part, mode in zip(module.modules(), training, strict=True):
        part.training = mode
