"""Tasks: a model, the micro-batches that it learns from, and the changes of each phase.

The trainer uses its model and data only through ``Task`` and ``Batches``.
"""

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from feldspar.core.streams import stream_seed
from feldspar.plan.timeline import PhasePlan, StepPlan
from feldspar.sparsity.masks import Masks
from feldspar.train.optimizer import Optimizer


class Batches(Protocol):
    """This process's part of each step, in micro-batches."""

    def prefetch(self, step: StepPlan) -> None:
        """Begin to load this process's part of a step."""
        ...

    @property
    def prefetched(self) -> bool:
        """True if a step was requested and is not taken yet."""
        ...

    def take(self) -> Sequence[tuple[Tensor, ...]]:
        """Return the micro-batches of the step that was requested first, on the device."""
        ...

    def count(self, micro_batch: tuple[Tensor, ...]) -> int:
        """Return the number of losses that the micro-batch sums over (tokens or images)."""
        ...

    @property
    def cut_tokens(self) -> int:
        """Tokens of the last ``take`` that did not fit into this process's sequences."""
        ...

    def close(self) -> None:
        """Stop loading."""
        ...


class Task(Protocol):
    """A model on its device, the module that maps a micro-batch to its summed loss, and
    the data.
    """

    @property
    def uses_dropout(self) -> bool:
        """True if the forward pass draws random numbers."""
        ...

    @property
    def batches(self) -> Batches:
        """Source of micro-batches."""
        ...

    @property
    def module(self) -> nn.Module:
        """The model with its loss, wrapped for the run's processes."""
        ...

    @property
    def model(self) -> nn.Module:
        """The model itself. Its parameters have the names that the masks use."""
        ...

    @property
    def masks(self) -> Masks:
        """This process's part of the masks in force."""
        ...

    @property
    def precision(self) -> torch.dtype:
        """Type of the matrix products."""
        ...

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which the module is called."""
        ...

    def enter_phase(self, phase: PhasePlan, optimizer: Optimizer) -> Optimizer:
        """Switch to a phase; return the optimizer that its steps use, the given one or another."""
        ...

    def begin_step(self, step: StepPlan) -> Hashable:
        """Prepare for a step; return a key that is equal for steps with the same operations."""
        ...

    def read_dense_gradients(self, step: StepPlan) -> None:
        """Keep what a move of the masks needs of the gradients that no mask has multiplied yet."""
        ...

    def move_masks(self, step: StepPlan, optimizer: Optimizer) -> None:
        """Move the masks after the update of a step, where they move."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the model that a checkpoint keeps, by name."""
        ...

    def state(self) -> dict[str, Any]:
        """Return the entries of a checkpoint's state on data and model."""
        ...

    def resume(self, state: dict[str, Any], where: str) -> None:
        """Continue from a checkpoint (its state and folder), whose tensors the model holds."""
        ...

    def flops(self, step: StepPlan) -> float:
        """Return floating-point operations of a step, as shares of the peak count them."""
        ...

    def record(self, step: StepPlan, seconds: float, cut_tokens: int) -> dict[str, Any]:
        """Return figures of a step that only this task has."""
        ...


def seed_dropout(seed: int, position: int, rank: int) -> None:
    """Give a step its own dropout stream, so that a resumed run draws the same."""
    torch.manual_seed(stream_seed(seed, "dropout", position, rank))
