"""Measure a head that is fused with its loss: the fused operation reports each example's share.

A module declares it in ``gradient_observers``: a mapping from the attribute that takes an observer
to the parameter whose gradient the fused operation computes itself. The operation calls ``see``
with each example's share while it computes them, and ``scale`` when it knows the gradient of the
loss.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from feldspar.core.errors import UserError
from feldspar.core.rows import declared
from feldspar.noise_scale.products import widened
from feldspar.noise_scale.recorder import Recorder
from feldspar.noise_scale.uses import ParameterUses


def declared_observers(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the attributes of ``module`` that take an observer, each with its parameter."""
    for attribute, parameter in declared(module, "gradient_observers").items():
        yield attribute, getattr(module, parameter)


class HeadObserver:
    """Observer in a module's attribute while a micro-batch is recorded."""

    def __init__(
        self, name: str, module: nn.Module, attribute: str, uses: ParameterUses, recorder: Recorder
    ) -> None:
        self.name = f"{name}.{attribute}" if name else attribute
        self._module = module
        self._attribute = attribute
        self.uses = uses
        self._recorder = recorder
        self._norms: list[Tensor] = []
        self._rows: list[Tensor] = []

    def begin(self) -> None:
        """Begin to observe."""
        setattr(self._module, self._attribute, self)

    def end(self) -> None:
        """Stop observing."""
        setattr(self._module, self._attribute, None)

    def see(self, example: int, gradient: Tensor) -> None:
        """Take one example's share (rows, d) per unit of loss; rows of the parameter may be
        missing."""
        if example == 0:
            self._norms, self._rows = [], []
            self.uses.called("matrix")
        if self.uses.ids is not None:
            ids, last = self.uses.ids[example], len(gradient) - 1
            absent = (ids > last)[:, None]
            self._rows.append(gradient[ids.clamp(max=last)].masked_fill_(absent, 0))
        mask = self.uses.mask
        flat = widened(gradient if mask is None else gradient * mask[: len(gradient)]).flatten()
        self._norms.append(torch.dot(flat, flat))

    def scale(self, factor: Tensor, gradient: Tensor) -> None:
        """Take the gradient of the loss and the whole gradient."""
        if self.uses.is_shared:
            raise UserError(
                f"{self.uses.name} has other uses than a fused head and one embedding",
                do="compute the loss from plain logits, or exclude it with "
                "coverage=lambda name, module: ...",
            )
        self._recorder.observe(self.name, len(self._norms))
        factor = factor.to(self._norms[0])
        self.uses.add(torch.stack(self._norms) * factor.square())
        if self._rows:
            self.uses.add_tied(torch.stack(self._rows) * factor)
        self._recorder.report_gradient(self.uses, gradient)
