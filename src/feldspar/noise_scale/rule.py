"""A rule: the way one module's forward pass runs while a micro-batch is recorded."""

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from feldspar.core.errors import UserError
from feldspar.noise_scale.recorder import Recorder
from feldspar.noise_scale.uses import Kind, ParameterUses

Forward = Callable[..., Any]


class Rule:
    """Replacement of the forward pass of one module; ``uses`` are its measured parameters by local
    name.

    The replacement computes the same as ``plain``, the module's own forward function, and reports
    each example's contribution to the uses.
    """

    compiles = False
    """True if the forward pass may be part of a compiled graph."""
    takes_one_tensor = True
    """True if the forward pass has a single argument, whatever its name."""

    def __init__(
        self, name: str, plain: Forward, uses: Mapping[str, ParameterUses], recorder: Recorder
    ) -> None:
        self.name = name
        self.plain = plain
        self.uses = uses
        self.recorder = recorder

    def forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Return the output of ``module`` for these arguments."""
        raise NotImplementedError

    def use(self, module: nn.Module, local_name: str, kind: Kind) -> Any:
        """Record that the forward pass uses a parameter, and return it; return None if there is
        none."""
        parameter = attrgetter(local_name)(module)
        if local_name in self.uses:
            if isinstance(parameter, DTensor):
                raise UserError(
                    f"{self.name}.{local_name} is split over processes during its forward pass",
                    do="use data parallelism (DDP, FSDP2); tensor parallelism is not supported",
                )
            self.uses[local_name].called(kind)
            self.recorder.watch(self.uses[local_name], parameter)
        return parameter

    def report_gradient(self, local_name: str, gradient: Tensor) -> None:
        """Record the gradient that a backward pass sends to a parameter."""
        self.recorder.report_gradient(self.uses[local_name], gradient)


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """Return the type in which autocast would compute a matrix product of ``x``; None: the type of
    ``x``."""
    device = x.device.type
    if not torch.is_autocast_enabled(device) or x.dtype == torch.float64:
        return None
    return torch.get_autocast_dtype(device)


def without_autocast(x: Tensor) -> torch.autocast:
    """Return a context in which autocast does not change the precision."""
    return torch.autocast(x.device.type, enabled=False)
