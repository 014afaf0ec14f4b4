"""Estimate gradient noise from the micro-batches or ranks that exist already.

All parameters count and no layer needs a rule, but there are few groups: for Gaussian gradients,
the error of the estimate is sqrt((B - 1) / (groups - 1)) times that of single examples. Source:
1812.06162, appendix A.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from feldspar.core.errors import UserError
from feldspar.noise_scale.control.statistics import Moments, StepStatistics
from feldspar.noise_scale.gathering import n_processes, squared_gradients, sum_over_processes
from feldspar.noise_scale.parameter_types import parameter_type
from feldspar.noise_scale.refusals import refuse, unwrapped

Groups = Literal["microbatches", "ranks"]


def track_groups(
    model: nn.Module,
    groups: Groups = "microbatches",
    masks: Mapping[str, Tensor] | None = None,
) -> "GroupTracker":
    """Install hooks on the parameters of ``model`` that take the norm of each group's gradient.

    ``microbatches``: one group for each micro-batch and process. ``ranks``: one for each process,
    its micro-batches together. ``masks`` are as in ``instrument``. Raises UserError for parameters
    that FSDP2 split, because no process has its own gradient of them.
    """
    model = unwrapped(model)
    refuse(model)
    if groups not in ("microbatches", "ranks"):
        raise UserError(f"unknown groups {groups!r}", allowed=["microbatches", "ranks"])
    parameters: dict[str, nn.Parameter] = {}
    types: dict[str, list[str]] = {}
    for module_name, module in model.named_modules():
        for local_name, parameter in module.named_parameters(recurse=False):
            known = any(parameter is other for other in parameters.values())
            if not parameter.requires_grad or known:
                continue
            name = f"{module_name}.{local_name}" if module_name else local_name
            if isinstance(parameter, DTensor):
                raise UserError(
                    f"{name} is split over processes, so no process has its own gradient of it",
                    do="instrument() the model instead",
                )
            parameters[name] = parameter
            kind = parameter_type(module_name, module, local_name)
            types.setdefault(kind or "", []).append(name)
    if not parameters:
        raise UserError("the model has no trained parameter")
    types.pop("", None)
    return GroupTracker(parameters, {"total": list(parameters), **types}, groups, masks or {})


class GroupTracker:
    """Collect the squared norms of the groups' gradients over a step."""

    def __init__(
        self,
        parameters: dict[str, nn.Parameter],
        types: dict[str, list[str]],
        groups: Groups,
        masks: Mapping[str, Tensor],
    ) -> None:
        self._parameters = list(parameters.values())
        self._names = list(parameters)
        self._types = types
        self._groups = groups
        self._device = self._parameters[0].device
        self._masks = {name: mask.to(self._device) for name, mask in masks.items()}
        self._active = False
        self._forget()
        self._hooks = [
            parameter.register_hook(self._hook(place))
            for place, parameter in enumerate(self._parameters)
        ]

    def follow_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Use other masks of the parameters that have one, between two steps."""
        self._masks = {name: masks[name].to(self._device) for name in self._masks}

    @contextmanager
    def microbatch(self, num_examples: int) -> Generator[None]:
        """Record forward and backward pass of one micro-batch with this number of examples."""
        if self._active:
            raise UserError("microbatch() was called inside another microbatch()")
        self._active = True
        try:
            yield
            self._sizes.append(num_examples)
            if self._groups == "microbatches":
                self._squares += self._current
                self._current.zero_()
        except BaseException:
            self._forget()
            raise
        finally:
            self._active = False

    @torch.no_grad()
    def finish(
        self,
        num_examples: int,
        loss_scale: float = 1.0,
        group: dist.ProcessGroup | None = None,
    ) -> StepStatistics:
        """Return the statistics of the micro-batches since the last call; see ``Tracker.finish``.

        Raises UserError for a single group, and for groups of unequal size.
        """
        try:
            return self._statistics(num_examples, loss_scale, group)
        finally:
            self._forget()

    def remove(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _hook(self, place: int) -> Callable[[Tensor], None]:
        def take(gradient: Tensor) -> None:
            if not self._active:
                return
            parameter = self._parameters[place]
            mask = self._masks.get(self._names[place])
            if mask is not None:
                gradient = gradient * mask
            if self._groups == "ranks" and parameter.grad is not None:
                # The accumulated gradient is not reduced yet: it is this process's own.
                gradient = gradient + parameter.grad
            wide = gradient if gradient.dtype == torch.float64 else gradient.float()
            square = torch.linalg.vector_norm(wide).double().square()
            self._current[place] = square

        return take

    def _forget(self) -> None:
        self._sizes: list[int] = []
        self._squares = torch.zeros(len(self._names), dtype=torch.float64, device=self._device)
        self._current = torch.zeros_like(self._squares)

    def _statistics(
        self, num_examples: int, loss_scale: float, group: dist.ProcessGroup | None
    ) -> StepStatistics:
        world_size = n_processes(group)
        by_rank = self._groups == "ranks"
        sizes = [sum(self._sizes)] if by_rank else self._sizes
        squares = self._current if by_rank else self._squares
        # The sum and the sum of squares of the sizes show on each process whether all are equal.
        told = [float(len(sizes)), float(sum(sizes)), float(sum(size**2 for size in sizes))]
        extra = torch.tensor(told, dtype=torch.float64, device=self._device)
        gathered = sum_over_processes(torch.cat([squares, extra]), group).tolist()
        n_groups, n_seen, n_squared = (round(value) for value in gathered[-3:])
        if n_seen != num_examples:
            raise UserError(
                f"the micro-batches of the step had {n_seen} examples",
                found=f"num_examples={num_examples}",
            )
        if n_groups < 2:
            raise UserError(
                f"the estimate needs at least two {self._groups} in each step",
                found=n_groups,
                do="accumulate over more micro-batches, or instrument() the model",
            )
        if n_squared * n_groups != n_seen**2:
            raise UserError(
                f"the {self._groups} of the step differ in size",
                found=f"{self._sizes} examples on this process",
                do="give each the same number of examples, or instrument() the model, "
                "which accepts any sizes",
            )
        grad_sq = squared_gradients(self._parameters, self._device).tolist()
        share = n_groups * (world_size * loss_scale) ** -2
        moments = {
            name: Moments(share * norm, square / loss_scale**2, num_examples, n_seen / n_groups)
            for name, norm, square in zip(self._names, gathered, grad_sq, strict=False)
        }
        return StepStatistics(moments, self._types)
