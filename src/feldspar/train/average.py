"""A moving average of a model's weights and running statistics, as a model of its own."""

from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from feldspar.train.trainer import Observer, Trainer

ModelT = TypeVar("ModelT", bound=nn.Module)

AVERAGE = "average."
"""The prefix of averaged tensors' names in a checkpoint."""


class WeightAverage(Observer, Generic[ModelT]):
    """The average ``decay * average + (1 - decay) * value`` of all floating-point tensors.

    The average begins with the model's own values. Counters are copied.
    """

    def __init__(self, model: ModelT, decay: float) -> None:
        self.model = deepcopy(model).eval().requires_grad_(False)
        self._decay = decay

    def see_update(self, trainer: Trainer) -> None:
        """Add the trained model's values after an update to the average."""
        self.update(trainer.task.model)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Update the average after a step."""
        own, others = tensors_of(self.model), tensors_of(model)
        pairs = [(average, others[name]) for name, average in own.items()]
        averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        if averaged:
            averages, values = map(list, zip(*averaged, strict=True))
            torch._foreach_lerp_(averages, values, 1 - self._decay)
        for average, value in pairs:
            if not average.is_floating_point():
                average.copy_(value)


def tensors_of(model: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """Return parameters and buffers by name."""
    named = (*model.named_parameters(), *model.named_buffers())
    return {prefix + name: tensor for name, tensor in named}
