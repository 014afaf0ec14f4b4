"""An optimizer over groups of parameters, with state under stable names for checkpoints.

Each update rule has an optimizer of torch of its own. Where only the rows from some row on are
trained, the optimizer is given tensors of these rows, which share the weights' memory. It therefore
cannot decay or change other rows, and its moments have the size of the rows only.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from feldspar.parametrization.application import ParameterGroup
from feldspar.recipe.sections.optimizer import (
    LanguageOptimizer,
    MuonSettings,
    OptimizerSettings,
    RmsPropSettings,
    SgdSettings,
    UpdateRule,
)
from feldspar.runtime.shards import LastRows, local_part

AnyOptimizer = LanguageOptimizer | SgdSettings | RmsPropSettings
Entries = list[dict[str, Any]]
"""Groups in the form that torch's optimizers take."""

STEP = "step"
"""The key of the count of updates. Other tensors of the state have the parameter's shape."""


class Optimizer:
    """Updates each group by its rule. The group multiplies the base rates by its own factors.

    ``first_rows`` gives by name the parameters of which only rows are trained, with the first of
    these rows.
    """

    def __init__(
        self,
        groups: list[ParameterGroup],
        settings: AnyOptimizer,
        first_rows: Mapping[str, int] | None = None,
    ) -> None:
        first = first_rows or {}
        self._wholes = [parameter for group in groups for parameter in group.parameters]
        names = [name for group in groups for name in group.names]
        self._first_rows = [first.get(name, 0) for name in names]
        self._first_on_process = {
            name: LastRows.of(whole, first[name]).first
            for name, whole in zip(names, self._wholes, strict=True)
            if first.get(name, 0) and isinstance(whole, DTensor)
        }
        """By name, for parameters split over processes: see ``LastRows.first``."""
        parts = iter(list(map(_trained_part, self._wholes, self._first_rows)))
        groups = [
            replace(group, parameters=tuple(islice(parts, len(group.parameters))))
            for group in groups
        ]
        self._clip_norm = None if settings.clip_norm == "none" else settings.clip_norm
        self._parameters = [parameter for group in groups for parameter in group.parameters]
        self._parts: list[tuple[torch.optim.Optimizer, list[ParameterGroup]]] = []
        for rule in dict.fromkeys(group.rule for group in groups):
            own = [group for group in groups if group.rule == rule]
            entries = [_entry(group) for group in own]
            self._parts.append((_MAKERS[rule.name](entries, settings), own))
        self.keeps_zeros = all(group.rule.keeps_zeros for group in groups)
        """True if masked entries stay zero without masking after the update."""
        # Create the state at once, so that a checkpoint can be read into it.
        for _, rule, parameter, state in self._states():
            if rule.counts_steps:
                state[STEP] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            for key in rule.moments:
                state[key] = torch.zeros_like(parameter, memory_format=torch.preserve_format)

    def set_rates(self, learning_rate: float, weight_decay: float) -> None:
        """Set the base learning rate and weight decay of the next update."""
        for optimizer, groups in self._parts:
            for group, values in zip(groups, optimizer.param_groups, strict=True):
                values["lr"] = learning_rate * group.learning_rate_multiplier
                values["weight_decay"] = weight_decay * group.weight_decay_multiplier

    def gradient_norm(self) -> Tensor:
        """Return the norm of the gradient of all trained rows, before clipping."""
        pairs = zip(self._wholes, self._parameters, self._first_rows, strict=True)
        for whole, part, first in pairs:
            if part is not whole:
                part.grad = None if whole.grad is None else _last_rows(whole.grad, first)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients, foreach=True)
        return norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # pyrefly: ignore

    def step(self, gradient_norm: Tensor) -> None:
        """Clip the gradient to the largest norm and update."""
        if self._clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self._parameters, self._clip_norm, gradient_norm)
        for optimizer, _ in self._parts:
            optimizer.step()

    def reset_moments(self, name: str, entries: Tensor) -> None:
        """Set the moments of some entries of a parameter to zero.

        ``entries`` is a bool tensor of the shape of this process's part of the parameter.
        """
        for own_name, rule, _, state in self._states():
            if own_name == name:
                for key in rule.moments:
                    local_part(state[key])[0].masked_fill_(entries, 0)

    def zero_gradients(self) -> None:
        """Reset the gradients."""
        for parameter in (*self._parameters, *self._wholes):
            parameter.grad = None

    def state(self) -> dict[str, Tensor | LastRows]:
        """Return moments and step counts by name: ``exp_avg/blocks.0...``."""
        return {
            f"{key}/{name}": self._in_place(tensor, name)
            for name, _, _, state in self._states()
            for key, tensor in state.items()
        }

    def _in_place(self, tensor: Tensor, name: str) -> Tensor | LastRows:
        """Return a tensor of the state with the place of its rows, where only some are trained."""
        first = self._first_on_process.get(name)
        whole = first is None or not isinstance(tensor, DTensor)
        return tensor if whole else LastRows(tensor, first)

    def _states(self) -> Iterator[tuple[str, UpdateRule, Tensor, dict[str, Tensor]]]:
        """Yield name, rule, parameter and state of each parameter."""
        for optimizer, groups in self._parts:
            for group in groups:
                for name, parameter in zip(group.names, group.parameters, strict=True):
                    yield name, group.rule, parameter, optimizer.state[parameter]


def _trained_part(parameter: nn.Parameter, first_row: int) -> nn.Parameter:
    """Return the rows from ``first_row`` on as a view; the parameter itself where these are all."""
    if first_row == 0:
        return parameter
    return nn.Parameter(_last_rows(parameter.detach(), first_row))


def _last_rows(tensor: Tensor, first_row: int) -> Tensor:
    if isinstance(tensor, DTensor):
        return LastRows.of(tensor, first_row).tensor
    return tensor[first_row:]


def _entry(group: ParameterGroup) -> dict[str, Any]:
    epsilon = group.rule.epsilon * group.epsilon_multiplier
    return {"params": list(group.parameters), "lr": 0.0, "weight_decay": 0.0, "eps": epsilon}


def _adamw(entries: Entries, settings: AnyOptimizer) -> torch.optim.Optimizer:
    assert isinstance(settings, OptimizerSettings | MuonSettings)
    return torch.optim.AdamW(entries, betas=settings.betas, fused=True)


def _muon(entries: Entries, settings: AnyOptimizer) -> torch.optim.Optimizer:
    assert isinstance(settings, MuonSettings)
    return torch.optim.Muon(
        entries,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        ns_steps=settings.ns_steps,
        adjust_lr_fn=settings.adjustment,
    )


def _sgd(entries: Entries, settings: AnyOptimizer) -> torch.optim.Optimizer:
    assert isinstance(settings, SgdSettings)
    # An update from a zero buffer equals the update without a buffer.
    return torch.optim.SGD(entries, momentum=settings.momentum, nesterov=settings.nesterov)


def _rmsprop(entries: Entries, settings: AnyOptimizer) -> torch.optim.Optimizer:
    assert isinstance(settings, RmsPropSettings)
    return torch.optim.RMSprop(entries, alpha=settings.smoothing, momentum=settings.momentum)


_MAKERS: dict[str, Callable[[Entries, AnyOptimizer], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "muon/original": _muon,
    "muon/match_rms_adamw": _muon,
    "sgd": _sgd,
    "rmsprop": _rmsprop,
}
"""A function for each rule, by name, that builds torch's optimizer of its groups."""
