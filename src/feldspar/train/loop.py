"""The loop: one optimizer step after the other, as the timeline says.

Order of a step: forward and backward of each micro-batch, masks, gradient norm, guards, noise
scale, clipping, update.
A step with a loss or gradient that is not finite on any process updates nothing anywhere.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from feldspar.plan.timeline import StepPlan
from feldspar.runtime.collectives import all_reduce_sum, rank, world_size
from feldspar.runtime.distributed import accumulate
from feldspar.runtime.guards import all_finite
from feldspar.runtime.threads import ThreadChoice
from feldspar.sparsity.masks import Masks
from feldspar.train.average import WeightAverage
from feldspar.train.gradient_noise import GradientNoise
from feldspar.train.optimizer import Optimizer
from feldspar.train.rehearsal import rehearse
from feldspar.train.task import Task, seed_dropout


@dataclass(frozen=True)
class StepResult:
    """What one step measured: mean loss, norm of the whole gradient before clipping."""

    loss: float
    gradient_norm: float
    updated: bool
    cut_tokens: int
    """Tokens of all processes that found no room in their sequences."""


@dataclass
class StepRunner:
    """Runs single steps of a task with an optimizer."""

    task: Task
    optimizer: Optimizer
    autocast: Callable[[], AbstractContextManager[object]]
    seed: int
    uses_dropout: bool
    model: nn.Module
    """What the task's module wraps; it names the parameters as the masks do."""
    masks: Masks
    """This process's part of them."""
    noise: GradientNoise | None = None
    """What measures the noise scale, where the recipe asks for it."""
    average: WeightAverage | None = None
    """The moving average of the model, where the recipe asks for it."""
    threads: ThreadChoice = field(default_factory=lambda: ThreadChoice(torch.get_num_threads()))
    """With how many threads a pass runs; a run replaces it by its own."""

    def run(self, step: StepPlan) -> StepResult:
        """One optimizer step; nothing changes when the loss or the gradient is not finite."""
        micro_batches = self.task.take()
        own_count = sum(map(self.task.count, micro_batches))
        count, cut_tokens = all_reduce_sum([float(own_count), float(self.task.cut_tokens)])
        if self.uses_dropout:
            seed_dropout(self.seed, step.position_before, rank())
        # Wrappers average gradients over processes; the sum over all of them is wanted.
        scale = world_size() / count
        summed = 0.0
        if self.noise is not None:
            self.noise.begin(step, [len(micro_batch[0]) for micro_batch in micro_batches])
        for index, micro_batch in enumerate(micro_batches):
            last = index == len(micro_batches) - 1
            with (
                self._threads(step, micro_batch, scale),
                accumulate(self.task.module, last),
                self._measured(micro_batch),
            ):
                loss_sum = self._passes(micro_batch, scale)
            summed += float(loss_sum.detach())
        loss = all_reduce_sum([summed])[0] / count
        with self.threads.update():
            gradient_norm, finite = self._update(step, loss)
        return StepResult(loss, float(gradient_norm), finite, int(cut_tokens))

    def _update(self, step: StepPlan, loss: float) -> tuple[Tensor, bool]:
        """Update by the gradients in place; their norm, and whether all was finite."""
        self.masks.apply_to_gradients(self.model)
        gradient_norm = self.optimizer.gradient_norm()
        finite = all_finite(loss, gradient_norm)
        if self.noise is not None:
            self.noise.finish(step, finite)
        if finite:
            self.optimizer.set_rates(step.learning_rate, step.weight_decay)
            self.optimizer.step(gradient_norm)
            if self.average is not None:
                self.average.update(self.model)
        self.optimizer.zero_gradients()
        return gradient_norm, finite

    def _passes(self, micro_batch: tuple[Tensor, ...], scale: float) -> Tensor:
        """Forward and backward pass; the micro-batch's summed loss."""
        with self.autocast():
            loss_sum = self.task.module(*micro_batch)
        (loss_sum * scale).backward()
        return loss_sum

    def _threads(
        self, step: StepPlan, micro_batch: tuple[Tensor, ...], scale: float
    ) -> AbstractContextManager[None]:
        shape = (step.phase.index, *(tuple(tensor.shape) for tensor in micro_batch))
        return self.threads.passes(
            shape,
            lambda: rehearse(self.model, lambda: self._passes(micro_batch, scale)),
            may_change=self.noise is None,
        )

    def _measured(self, micro_batch: tuple[Tensor, ...]) -> AbstractContextManager[object]:
        return nullcontext() if self.noise is None else self.noise.micro_batch(len(micro_batch[0]))
