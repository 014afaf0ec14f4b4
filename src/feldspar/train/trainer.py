"""The trainer: a task's model, one optimizer step after the other, as the timeline says.

Order of a step: forward and backward pass of each micro-batch, masks on the gradient, gradient
norm, guards, noise scale, clipping, update, move of the masks; then each observer in its order:
guards, noise scale and decision on the batch, validation, metrics, checkpoint. A step with a loss
or gradient that is not finite on any process updates nothing anywhere.
"""

import time
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from feldspar.core.records import append_record
from feldspar.plan.timeline import PhasePlan, StepPlan
from feldspar.runtime.collectives import all_reduce_sum, is_first, rank, world_size
from feldspar.runtime.distributed import accumulate
from feldspar.runtime.guards import all_finite
from feldspar.runtime.run_folder import RunFolder
from feldspar.runtime.threads import ThreadChoice
from feldspar.train.optimizer import Optimizer
from feldspar.train.rehearsal import rehearse
from feldspar.train.task import Task, seed_dropout


@dataclass
class TakenStep:
    """One finished step: its plan and its measurements."""

    plan: StepPlan
    loss: float
    """Mean over all processes."""
    gradient_norm: float
    """Norm of the whole gradient before clipping."""
    updated: bool
    """False if loss or gradient were not finite on some process."""
    cut_tokens: int
    """Tokens of all processes that did not fit into their sequences."""
    seconds: float = 0.0
    record: dict[str, Any] = field(default_factory=dict)
    """Figures of observers for metrics.jsonl."""
    interrupted: bool = False
    """True if an observer spent time that does not belong to the step."""


class Observer:
    """Base class of observers of a training. Each method is called at its time and does nothing.

    Observers are called in the trainer's order. A later observer sees the records of earlier ones.
    """

    measures_passes = False
    """True if ``micro_batch`` measures. The number of threads then stays the same."""

    def begin(self, trainer: "Trainer") -> None:
        """Prepare for the first step of this process."""

    def enter_phase(self, trainer: "Trainer") -> None:
        """Prepare for the steps of ``trainer.phase``."""

    def begin_step(self, plan: StepPlan, sizes: Sequence[int]) -> None:
        """Prepare for a step whose micro-batches on this process have ``sizes`` examples."""

    def micro_batch(self, size: int) -> AbstractContextManager[object]:
        """Surround forward and backward pass of a micro-batch of ``size`` examples."""
        return nullcontext()

    def see_gradients(self, plan: StepPlan, finite: bool) -> None:
        """Read the step's gradients, which are masked and not yet clipped."""

    def see_update(self, trainer: "Trainer") -> None:
        """Read the weights after an update."""

    def after_step(self, trainer: "Trainer", step: TakenStep) -> None:
        """Read a finished step, whether it updated or not."""

    def state(self) -> dict[str, Any]:
        """Return the entries that a checkpoint's state keeps of this observer."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's ``state``."""

    def close(self) -> None:
        """Finish; called when training ends or fails."""


class Course(Protocol):
    """The order of steps: the timeline, or the timeline at a pace that is decided during
    the run.
    """

    def next_step(self, position: int, /) -> StepPlan | None:
        """Return the step that begins at ``position``; None at the end."""
        ...

    def known_next(self, step: StepPlan, /) -> StepPlan | None:
        """Return the step after ``step`` if it is known before ``step`` is done."""
        ...


@dataclass
class Trainer:
    """Trains a task with an optimizer, and informs observers.

    A new trainer is at the start of a run. ``resume`` moves it to the position of a checkpoint.
    """

    task: Task
    optimizer: Optimizer
    """The optimizer. It is replaced at the start of a phase that asks for another."""
    observers: Sequence[Observer]
    course: Course
    phase: PhasePlan
    """The phase that task and observers are prepared for."""
    folder: RunFolder
    threads: ThreadChoice
    seed: int
    position: int = 0
    """Position in the run, in the timeline's unit."""
    steps: int = 0
    """The number of finished steps."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Figures of the last validation, by which old checkpoints are kept or deleted."""
    _operations: tuple[Hashable, ...] = ()
    """Phase and kind of the step's passes: equal where all operations are."""

    def __post_init__(self) -> None:
        for observer in self.observers:
            observer.enter_phase(self)

    def train(self) -> None:
        """Take steps until the order of steps ends or an observer ends the process."""
        with ExitStack() as stack:
            for observer in self.observers:
                observer.begin(self)
                stack.callback(observer.close)
            stack.callback(self.task.batches.close)
            while (plan := self.course.next_step(self.position)) is not None:
                if plan.phase.index != self.phase.index:
                    self.enter_phase(plan.phase)
                began = time.perf_counter()
                step = self.step(plan)
                step.seconds = time.perf_counter() - began
                for observer in self.observers:
                    observer.after_step(self, step)

    def enter_phase(self, phase: PhasePlan) -> None:
        """Prepare task, optimizer and observers for the steps of ``phase``."""
        self.phase = phase
        self.optimizer = self.task.enter_phase(phase, self.optimizer)
        for observer in self.observers:
            observer.enter_phase(self)

    def step(self, plan: StepPlan) -> TakenStep:
        """Take one step. Nothing is updated when the loss or the gradient is not finite."""
        batches = self.task.batches
        upcoming = self.course.known_next(plan)
        if not batches.prefetched:
            batches.prefetch(plan)
        if upcoming is not None:
            batches.prefetch(upcoming)
        micro_batches = batches.take()
        own_count = sum(map(batches.count, micro_batches))
        count, cut_tokens = all_reduce_sum([float(own_count), float(batches.cut_tokens)])
        if self.task.uses_dropout:
            seed_dropout(self.seed, plan.position_before, rank())
        for observer in self.observers:
            observer.begin_step(plan, [len(micro_batch[0]) for micro_batch in micro_batches])
        self._operations = (plan.phase.index, self.task.begin_step(plan))
        # Wrappers average gradients over processes; the sum over all of them is wanted.
        loss = self._all_passes(micro_batches, world_size() / count) / count
        with self.threads.update():
            gradient_norm, finite = self._update(plan, loss)
        self.position, self.steps = plan.position_after, self.steps + 1
        for news in self.threads.take_news():
            self.event("threads", **news)
        return TakenStep(plan, loss, float(gradient_norm), finite, int(cut_tokens))

    def state(self) -> dict[str, Any]:
        """Return a checkpoint's state without tensors: of trainer, observers and task."""
        state: dict[str, Any] = {
            "step": self.steps,
            self.folder.position_unit: self.position,
            "phase": self.phase.index,
            "world_size": world_size(),
            "threads": self.threads.home,
            "metrics": self.metrics,
        }
        for part in (*self.observers, self.task):
            state |= part.state()
        return state

    def resume(self, state: dict[str, Any], where: str) -> None:
        """Move to the position of a checkpoint, whose tensors task and optimizer already hold.

        ``state`` is the checkpoint's state, ``where`` its folder.
        """
        self.position, self.steps = state[self.folder.position_unit], state["step"]
        self.metrics = state["metrics"]
        for observer in self.observers:
            observer.load_state(state)
        self.task.resume(state, where)

    def event(self, what: str, **details: Any) -> None:
        """Record an event of the run."""
        if is_first():
            record = {"event": what, self.folder.position_unit: self.position, "step": self.steps}
            append_record(self.folder.events, record | details)

    def _all_passes(self, micro_batches: Sequence[tuple[Tensor, ...]], scale: float) -> float:
        """Run forward and backward passes; return the losses summed over all processes."""
        summed = 0.0
        for index, micro_batch in enumerate(micro_batches):
            last = index == len(micro_batches) - 1
            with ExitStack() as around:
                around.enter_context(self._threads(micro_batch, scale))
                around.enter_context(accumulate(self.task.module, last))
                for observer in self.observers:
                    around.enter_context(observer.micro_batch(len(micro_batch[0])))
                loss_sum = self._passes(micro_batch, scale)
            summed += float(loss_sum.detach())
        return all_reduce_sum([summed])[0]

    def _passes(self, micro_batch: tuple[Tensor, ...], scale: float) -> Tensor:
        """Run forward and backward pass; return the micro-batch's summed loss."""
        with self.task.autocast():
            loss_sum = self.task.module(*micro_batch)
        (loss_sum * scale).backward()
        return loss_sum

    def _threads(
        self, micro_batch: tuple[Tensor, ...], scale: float
    ) -> AbstractContextManager[None]:
        shape = (*self._operations, *(tuple(tensor.shape) for tensor in micro_batch))
        return self.threads.passes(
            shape,
            lambda: rehearse(self.task.model, lambda: self._passes(micro_batch, scale)),
            may_change=not any(observer.measures_passes for observer in self.observers),
        )

    def _update(self, plan: StepPlan, loss: float) -> tuple[Tensor, bool]:
        """Update by the gradients in place; return their norm, and whether all were finite."""
        self.task.read_dense_gradients(plan)
        self.task.masks.apply_to_gradients(self.task.model)
        gradient_norm = self.optimizer.gradient_norm()
        finite = all_finite(loss, gradient_norm)
        for observer in self.observers:
            observer.see_gradients(plan, finite)
        if finite:
            self.optimizer.set_rates(plan.learning_rate, plan.weight_decay)
            self.optimizer.step(gradient_norm)
            if not self.optimizer.keeps_zeros:
                self.task.masks.apply_to_weights(self.task.model)
            self.task.move_masks(plan, self.optimizer)
            for observer in self.observers:
                observer.see_update(self)
        self.optimizer.zero_gradients()
        return gradient_norm, finite
