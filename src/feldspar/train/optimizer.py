"""An optimizer over groups of parameters, its state under stable names for checkpoints.

Where only the rows from some row on are trained, the update is given these rows as tensors of
their own, which share the weights' memory: it cannot decay or move what it does not hold, and its
moments are as small.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from feldspar.parametrization.application import ParameterGroup
from feldspar.recipe.sections.optimizer import OptimizerSettings, RmsPropSettings, SgdSettings

AnyOptimizer = OptimizerSettings | SgdSettings | RmsPropSettings

STEP = "step"
"""A count of updates; the other tensors of the state have the shape of their parameter."""


class Optimizer:
    """AdamW, SGD or RMSprop; each group multiplies the base rates by its own factors.

    Of each parameter the rows from ``first_row`` on are trained.
    """

    def __init__(
        self, groups: list[ParameterGroup], settings: AnyOptimizer, first_row: int = 0
    ) -> None:
        self._first_row = first_row
        self._wholes = [parameter for group in groups for parameter in group.parameters]
        groups = [
            replace(group, parameters=tuple(map(self._trained_part, group.parameters)))
            for group in groups
        ]
        self._groups = groups
        self._clip_norm = None if settings.clip_norm == "none" else settings.clip_norm
        self._rule, self._state_keys = _update_rule(groups, settings)
        self._parameters = [parameter for group in groups for parameter in group.parameters]
        self._allocate_state()

    def set_rates(self, learning_rate: float, weight_decay: float) -> None:
        """Set the base learning rate and decay of the next update."""
        for group, values in zip(self._groups, self._rule.param_groups, strict=True):
            values["lr"] = learning_rate * group.learning_rate_multiplier
            values["weight_decay"] = weight_decay * group.weight_decay_multiplier

    def gradient_norm(self) -> Tensor:
        """Norm of the gradient of all that is trained, before clipping."""
        for whole, part in zip(self._wholes, self._parameters, strict=True):
            if part is not whole:
                part.grad = None if whole.grad is None else whole.grad[self._first_row :]
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients, foreach=True)
        return norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # pyrefly: ignore

    def step(self, gradient_norm: Tensor) -> None:
        """Clip to the largest norm and update."""
        if self._clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self._parameters, self._clip_norm, gradient_norm)
        self._rule.step()

    def zero_gradients(self) -> None:
        """Forget the gradients."""
        self._rule.zero_grad(set_to_none=True)
        for whole in self._wholes:
            whole.grad = None

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts by name: ``exp_avg/blocks.0...``."""
        return {
            f"{key}/{name}": self._rule.state[parameter][key]
            for group in self._groups
            for name, parameter in zip(group.names, group.parameters, strict=True)
            for key in self._state_keys
        }

    def _trained_part(self, parameter: nn.Parameter) -> nn.Parameter:
        """The rows that are trained, in the same memory; the parameter itself where all are."""
        if self._first_row == 0:
            return parameter
        return nn.Parameter(parameter.detach()[self._first_row :])

    def _allocate_state(self) -> None:
        """State exists from the start, so that a checkpoint can be read into it."""
        for parameter in self._parameters:
            state = self._rule.state[parameter]
            for key in self._state_keys:
                if key == STEP:
                    state[key] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                else:
                    state[key] = torch.zeros_like(parameter, memory_format=torch.preserve_format)


def _update_rule(
    groups: list[ParameterGroup], settings: AnyOptimizer
) -> tuple[torch.optim.Optimizer, tuple[str, ...]]:
    """Torch's optimizer, and the names of the tensors that it keeps of each parameter."""
    if isinstance(settings, OptimizerSettings):
        epsilons = [settings.epsilon * group.epsilon_multiplier for group in groups]
        entries = [
            _entry(group) | {"eps": epsilon}
            for group, epsilon in zip(groups, epsilons, strict=True)
        ]
        rule = torch.optim.AdamW(entries, betas=settings.betas, fused=True)
        return rule, (STEP, "exp_avg", "exp_avg_sq")
    entries = [_entry(group) for group in groups]
    momentum = ("momentum_buffer",) if settings.momentum else ()
    if isinstance(settings, SgdSettings):
        # An update from a buffer of zeros is that of an absent one.
        return (
            torch.optim.SGD(entries, momentum=settings.momentum, nesterov=settings.nesterov),
            momentum,
        )
    rule = torch.optim.RMSprop(
        entries, alpha=settings.smoothing, momentum=settings.momentum, eps=settings.epsilon
    )
    return rule, (STEP, "square_avg", *momentum)


def _entry(group: ParameterGroup) -> dict[str, object]:
    return {"params": list(group.parameters), "lr": 0.0, "weight_decay": 0.0}
