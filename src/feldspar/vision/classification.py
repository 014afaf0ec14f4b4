"""The task of a vision model: a network on its device that learns to classify images."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from feldspar.parametrization.application import ParameterGroup
from feldspar.plan.batches import check_divides
from feldspar.plan.timeline import PhasePlan, StepPlan
from feldspar.recipe.sections.optimizer import OptimizerSettings, RmsPropSettings, SgdSettings
from feldspar.runtime.device import autocast, choose_precision
from feldspar.runtime.distributed import Distribution
from feldspar.runtime.threads import set_threads
from feldspar.sparsity.masks import Masks
from feldspar.train.average import AVERAGE, WeightAverage, tensors_of
from feldspar.train.optimizer import Optimizer
from feldspar.vision.batch_norm import synchronise_batch_norms
from feldspar.vision.data import ImageData
from feldspar.vision.load import CLASSES_KEY
from feldspar.vision.measure import measure
from feldspar.vision.plan import VisionPlan
from feldspar.vision.revbifpn import RevBiFPN
from feldspar.vision.start import start_network
from feldspar.vision.task import ClassificationLoss, ImageBatches

TRANSFORMS_KEY, TRANSFORMS = "image_transforms", "torchvision"
"""The library that changes training images, in the state of a checkpoint. Other code would give
other pixels; runs of earlier versions of feldspar do not name it."""


@dataclass
class Classification:
    """A network with its images, and the average of its weights where the recipe asks for one."""

    plan: VisionPlan
    data: ImageData
    distribution: Distribution
    precision: torch.dtype
    model: RevBiFPN
    average: WeightAverage[RevBiFPN] | None
    module: nn.Module
    """The model with its loss, wrapped for the run's processes."""
    batches: ImageBatches
    masks: Masks
    """None of the weights is masked."""

    @property
    def uses_dropout(self) -> bool:
        """True where the forward pass draws random numbers."""
        settings = self.plan.recipe.model
        return settings.dropout > 0 or settings.stochastic_depth > 0

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
        return {
            "batch_images": step.sequences,
            "images_per_second": step.sequences / seconds,
        }

    def state(self) -> dict[str, Any]:
        """Return the digest of the training images, who changes them, and their classes."""
        return {
            "training_images": self.data.digest,
            TRANSFORMS_KEY: TRANSFORMS,
            CLASSES_KEY: list(self.data.train.classes),
        }

    def resume(self, state: dict[str, Any], where: str) -> None:
        """Continue from a checkpoint; its tensors are all that it holds of the network."""

    def validate(self, step: StepPlan) -> dict[str, float]:
        """Measure loss, top-1 and top-5 of the validation images, at the phase's resolution."""
        recipe = self.plan.recipe
        phase = recipe.phases[step.phase.index]
        return measure(
            self.model if self.average is None else self.average.model,
            self.data.validation,
            recipe,
            phase.resolution,
            phase.batch.images,
            self.distribution.device,
            self.autocast,
        )


def classification(
    plan: VisionPlan, data: ImageData, distribution: Distribution, begins: bool
) -> Classification:
    """Build a network, ready for training.

    A run that ``begins`` has the weights of ``start_from``; else a checkpoint will fill them.
    Raises UserError for a batch that does not divide among the processes.
    """
    recipe, device = plan.recipe, distribution.device
    for index, phase in enumerate(recipe.phases):
        check_divides(
            phase.batch.images, distribution.world_size, f"phases.{index}.batch", "images"
        )
    set_threads(recipe.runtime)
    precision = choose_precision(recipe.runtime, device)
    network = RevBiFPN(recipe.model, recipe.runtime.activation_memory, recipe.seed)
    if begins:
        start_network(network, recipe)
    network = network.to(device)
    average = None
    if recipe.average_weights is not None:
        average = WeightAverage(network, recipe.average_weights.decay)
    if distribution.world_size > 1:
        synchronise_batch_norms(network)
    batches = ImageBatches(recipe, data.train, device, distribution.rank, distribution.world_size)
    module = distribution.wrap(ClassificationLoss(network))
    return Classification(
        *(plan, data, distribution, precision, network, average, module, batches), masks=Masks()
    )


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
