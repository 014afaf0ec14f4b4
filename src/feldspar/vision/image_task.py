"""The common part of tasks on images: one network, dense weights, images for tokens."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from feldspar.parametrization.application import ParameterGroup
from feldspar.plan.timeline import PhasePlan, StepPlan
from feldspar.recipe.sections.optimizer import OptimizerSettings, RmsPropSettings, SgdSettings
from feldspar.runtime.device import autocast
from feldspar.runtime.distributed import Distribution
from feldspar.sparsity.masks import Masks
from feldspar.train.average import AVERAGE, WeightAverage, tensors_of
from feldspar.train.optimizer import Optimizer
from feldspar.vision.plan import VisionPlan

Network = TypeVar("Network", bound=nn.Module)


@dataclass
class ImageTask(Generic[Network]):
    """A network, and the average of its weights where the recipe asks for one."""

    plan: VisionPlan
    distribution: Distribution
    precision: torch.dtype
    model: Network
    average: WeightAverage[Network] | None
    masks: Masks
    """None of the weights is masked."""

    @property
    def measured(self) -> Network:
        """The network that validation measures: the averaged one where there is one."""
        return self.model if self.average is None else self.average.model

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which the module is called."""
        return autocast(self.distribution.device, self.precision)

    def tensors(self) -> dict[str, Tensor]:
        """Return weights and running statistics by name; those of the average too."""
        averaged = {} if self.average is None else tensors_of(self.average.model, AVERAGE)
        return tensors_of(self.model) | averaged

    def optimizer(self) -> Optimizer:
        """Build a fresh optimizer."""
        return build_optimizer(self.model, self.plan.recipe.optimizer)

    def enter_phase(self, phase: PhasePlan, optimizer: Optimizer) -> Optimizer:
        """Return the optimizer of a phase: with the state so far, or a fresh one."""
        fresh = self.plan.recipe.phases[phase.index].optimizer_state == "fresh"
        return self.optimizer() if fresh else optimizer

    def begin_step(self, step: StepPlan) -> None:
        """Prepare nothing: all steps have the same operations."""

    def read_dense_gradients(self, step: StepPlan) -> None:
        """Keep nothing: there are no masks."""

    def move_masks(self, step: StepPlan, optimizer: Optimizer) -> None:
        """Move nothing: there are no masks."""

    def flops(self, step: StepPlan) -> float:
        """Return forward and backward FLOPs of a step, without those of recomputation."""
        return self.plan.flops_per_image(step.phase.index) * step.sequences

    def record(self, step: StepPlan, seconds: float, cut_tokens: int) -> dict[str, Any]:
        """Return the images of a step."""
        return {"batch_images": step.sequences, "images_per_second": step.sequences / seconds}

    def resume(self, state: dict[str, Any], where: str) -> None:
        """Continue from a checkpoint; its tensors are all that it holds of the network."""


def averaged(plan: VisionPlan, network: Network) -> WeightAverage[Network] | None:
    """Return the average of the network's weights that the recipe asks for."""
    settings = plan.recipe.average_weights
    return None if settings is None else WeightAverage(network, settings.decay)


def build_optimizer(
    network: nn.Module, settings: OptimizerSettings | SgdSettings | RmsPropSettings
) -> Optimizer:
    """Build a fresh optimizer; kernels and matrices decay, norms and biases do not."""
    named = list(network.named_parameters())
    groups = []
    for decays in (True, False):
        members = [pair for pair in named if (pair[1].ndim > 1) == decays]
        names, parameters = zip(*members, strict=True)
        groups.append(
            ParameterGroup(names, parameters, 1.0, float(decays), 1.0, settings.only_rule)
        )
    return Optimizer(groups, settings)
