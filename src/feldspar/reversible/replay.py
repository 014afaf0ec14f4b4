"""Call a module once without a graph, and later again for its gradients.

The second call uses the random state, autocast, modes and buffers of the first one. It works on
copies of parameters and buffers: running statistics are updated once, and hooks on parameters see
only the gradient of the outer backward pass. Hooks on the modules themselves run in both calls.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from feldspar.core.errors import RunError, UserError
from feldspar.reversible.execution_state import Autocast, RandomState, modes_in_force

_recomputing: ContextVar[bool] = ContextVar("recomputing", default=False)


def is_recomputing() -> bool:
    """Tell whether a module is called a second time; for hooks that count or log calls."""
    return _recomputing.get()


class Replay:
    """One call of ``module`` on ``device``."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self._module = module
        self._device = device
        self._autocast = Autocast.current(device)
        self._training = [part.training for part in module.modules()]
        self._versions = [parameter._version for parameter in module.parameters()]
        self._random: RandomState | None = None
        self._overwritten: dict[tuple[nn.Module, str], Tensor] = {}

    def first(self, *inputs: Tensor | None) -> Any:
        """Return the module's output without a graph; remember the random state if it was used, and
        the values of buffers that the call wrote."""
        before = RandomState.current(self._device)
        buffers = _buffers_that_are_read(self._module)
        entered = [(key, buffer, buffer._version, buffer.clone()) for key, buffer in buffers]
        with torch.no_grad(), self._autocast.applied():
            output = self._module(*inputs)
        if not before.equals(RandomState.current(self._device)):
            self._random = before
        self._overwritten = {
            (part, name): value
            for (part, name), buffer, version, value in entered
            if part._buffers[name] is not buffer or buffer._version != version
        }
        return output

    def again(self, *inputs: Tensor | None) -> tuple[Any, dict[int, Tensor]]:
        """Return the output with a graph, and for each trainable parameter (by ``id``) its leaf in
        it.

        Raises RunError if a parameter changed since the first call.
        """
        self._require_same_parameters()
        stand_ins = {
            id(parameter): parameter.detach().requires_grad_(parameter.requires_grad)
            for parameter in self._module.parameters()
        }
        leaves = {
            id(parameter): stand_ins[id(parameter)]
            for parameter in trainable_parameters(self._module)
        }
        with ExitStack() as stack:
            stack.enter_context(_marked_as_recomputing())
            stack.enter_context(modes_in_force(self._module, self._training))
            if self._random is not None:
                stack.enter_context(self._random.applied())
            stack.enter_context(self._autocast.applied())
            stack.enter_context(torch.enable_grad())
            output = _call_with(self._module, stand_ins | self._buffers(), inputs)
        return output, leaves

    def _buffers(self) -> dict[int, Tensor]:
        """Return a copy of each buffer as it was before the first call, by the buffer's ``id``."""
        return _copies(self._module) | {
            id(part._buffers[name]): value.clone()
            for (part, name), value in self._overwritten.items()
        }

    def _require_same_parameters(self) -> None:
        named = self._module.named_parameters()
        for (name, parameter), version in zip(named, self._versions, strict=True):
            if parameter._version != version:
                raise RunError(
                    f"parameter {name} changed between the forward and the backward pass",
                    where=type(self._module).__name__,
                    do="update parameters after the backward pass, or use memory='store'",
                )


def call_purely(module: nn.Module, *inputs: Tensor | None) -> Any:
    """Return the module's output without a graph and without changing its buffers."""
    with torch.no_grad(), _marked_as_recomputing():
        return _call_with(module, _copies(module), inputs)


def _buffers_that_are_read(module: nn.Module) -> list[tuple[tuple[nn.Module, str], Tensor]]:
    """Return the buffers on which the output may depend, with module and name.

    A batch norm writes its running statistics in training, but reads them in evaluation only.
    """
    return [
        ((part, name), buffer)
        for part in module.modules()
        if not isinstance(part, _BatchNorm)
        for name, buffer in part._buffers.items()
        if buffer is not None
    ]


def _copies(module: nn.Module) -> dict[int, Tensor]:
    """Return a copy of each buffer, by the buffer's ``id``."""
    return {id(buffer): buffer.clone() for buffer in module.buffers()}


def _call_with(
    module: nn.Module, stand_ins: Mapping[int, Tensor], inputs: tuple[Tensor | None, ...]
) -> Any:
    """Return the output with other tensors in the place of parameters and buffers, by their ``id``.

    A submodule that is reached by two names is named once: torch would restore its tensors in the
    wrong order and leave the stand-ins in it.
    """
    named = {
        f"{prefix}.{name}" if prefix else name: stand_ins[id(tensor)]
        for prefix, part in module.named_modules()
        for name, tensor in {**part._parameters, **part._buffers}.items()
        if tensor is not None and id(tensor) in stand_ins
    }
    return functional_call(module, named, inputs, tie_weights=False)


@contextmanager
def _marked_as_recomputing() -> Generator[None]:
    token = _recomputing.set(True)
    try:
        yield
    finally:
        _recomputing.reset(token)


def trainable_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters whose gradients a backward pass must return, each once."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def leaf_of(tensor: Tensor | None) -> Tensor | None:
    """Return an input for the second call: a leaf that gets a gradient if the tensor does."""
    return None if tensor is None else tensor.detach().requires_grad_(tensor.requires_grad)


def gradients_of(
    outputs: Sequence[Tensor], gradients: Sequence[Tensor], inputs: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Return the gradients of ``inputs``; None for those that have or need none."""
    pairs = zip(outputs, gradients, strict=True)
    reached = [(output, gradient) for output, gradient in pairs if output.requires_grad]
    wanted = [tensor for tensor in inputs if tensor is not None and tensor.requires_grad]
    if not reached:
        return [None] * len(inputs)
    ends, towards = zip(*reached, strict=True)
    found = iter(torch.autograd.grad(ends, wanted, towards, allow_unused=True))
    return [
        next(found) if tensor is not None and tensor.requires_grad else None for tensor in inputs
    ]


class SecondDerivativeError(UserError, NotImplementedError):
    """Second derivatives of what is computed again."""


def refuse_double_backward() -> None:
    """Raise SecondDerivativeError in a backward pass that is itself recorded
    (``create_graph=True``)."""
    if torch.is_grad_enabled():
        raise SecondDerivativeError(
            "recomputed activations have no second derivatives (create_graph=True)",
            do="use memory='store'",
        )
