"""What a second call of a module must find as the first did: autocast, random state, modes."""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

META = "meta"
"""The device of tensors without values: it neither casts nor draws."""


@dataclass(frozen=True)
class Autocast:
    """Whether and to which type each kind of device casts."""

    regions: tuple[tuple[str, bool, torch.dtype], ...]

    @classmethod
    def of_now(cls, device: torch.device) -> "Autocast":
        """Return the settings in force of the processor and of ``device``."""
        kinds = sorted({"cpu", device.type} - {META})
        return cls(
            tuple(
                (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
                for kind in kinds
            )
        )

    @contextmanager
    def in_force(self) -> Generator[None]:
        """Apply them, without the cache of casts: one made without a graph must not be reused."""
        with ExitStack() as stack:
            for kind, enabled, dtype in self.regions:
                stack.enter_context(
                    torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=False)
                )
            yield


@dataclass(frozen=True)
class RandomState:
    """The states of the default generators of the processor and, if another, of ``device``."""

    device: torch.device
    states: tuple[Tensor, ...]

    @classmethod
    def of_now(cls, device: torch.device) -> "RandomState":
        """Return the states in force."""
        states = [torch.get_rng_state()]
        if device.type not in ("cpu", META):
            states.append(torch.get_device_module(device).get_rng_state(device))
        return cls(device, tuple(states))

    def equals(self, other: "RandomState") -> bool:
        """Tell whether nothing was drawn between the two."""
        return all(map(torch.equal, self.states, other.states))

    def restore(self) -> None:
        """Go back to these states."""
        torch.set_rng_state(self.states[0])
        if len(self.states) > 1:
            torch.get_device_module(self.device).set_rng_state(self.states[1], self.device)

    @contextmanager
    def in_force(self) -> Generator[None]:
        """Draw from these states, and leave the generators as if nothing had been drawn."""
        outside = RandomState.of_now(self.device)
        self.restore()
        try:
            yield
        finally:
            outside.restore()


@contextmanager
def modes_in_force(module: nn.Module, training: Sequence[bool]) -> Generator[None]:
    """Give each submodule its mode of ``training`` (as ``modules()`` lists them) for a while."""
    outside = [part.training for part in module.modules()]
    _set_modes(module, training)
    try:
        yield
    finally:
        _set_modes(module, outside)


def _set_modes(module: nn.Module, training: Sequence[bool]) -> None:
    for part, mode in zip(module.modules(), training, strict=True):
        part.training = mode
