"""The task of a network that finds objects or classes of pixels, on its device with its images."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from feldspar.core.errors import SetupError
from feldspar.plan.timeline import PhasePlan, StepPlan
from feldspar.runtime.device import autocast, choose_precision
from feldspar.runtime.distributed import Distribution
from feldspar.runtime.threads import set_threads
from feldspar.sparsity.masks import Masks
from feldspar.train.average import AVERAGE, WeightAverage, tensors_of
from feldspar.train.optimizer import Optimizer
from feldspar.vision.classification import build_optimizer
from feldspar.vision.data import ObjectData
from feldspar.vision.detection.batches import ObjectBatches
from feldspar.vision.detection.detectors import Detector
from feldspar.vision.detection.measure import HeldOut, measure_detector, measure_segmenter
from feldspar.vision.detection.networks import ObjectNetwork, object_network, start_from_weights
from feldspar.vision.load import CLASSES_KEY
from feldspar.vision.plan import VisionPlan


@dataclass
class ObjectTask:
    """A network with its images, and the average of its weights where the recipe asks for one."""

    plan: VisionPlan
    data: ObjectData
    device: torch.device
    precision: torch.dtype
    model: ObjectNetwork
    average: WeightAverage[ObjectNetwork] | None
    batches: ObjectBatches
    masks: Masks
    """None of the weights is masked."""

    uses_dropout = True
    """Detectors draw the anchors and regions that they learn from."""

    @property
    def module(self) -> ObjectNetwork:
        """The network, which maps a micro-batch to its loss."""
        return self.model

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which the network is called."""
        return autocast(self.device, self.precision)

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

    def state(self) -> dict[str, Any]:
        """Return the digest of the training images and the names of their categories."""
        return {"training_images": self.data.digest, CLASSES_KEY: list(self.data.train.classes)}

    def resume(self, state: dict[str, Any], where: str) -> None:
        """Continue from a checkpoint; its tensors are all that it holds of the network."""

    def validate(self, step: StepPlan) -> dict[str, float]:
        """Measure the validation images at the phase's resolution."""
        recipe = self.plan.recipe
        phase = recipe.phases[step.phase.index]
        held_out = HeldOut(
            self.data.validation,
            recipe,
            phase.resolution,
            phase.batch.images,
            self.device,
            self.autocast,
        )
        return measure_network(self.model if self.average is None else self.average.model, held_out)


def measure_network(network: ObjectNetwork, held_out: HeldOut) -> dict[str, float]:
    """Return the measures of a network's task on held-out images."""
    if isinstance(network, Detector):
        return measure_detector(network, held_out)
    return measure_segmenter(network, held_out)


def object_task(
    plan: VisionPlan, data: ObjectData, distribution: Distribution, begins: bool
) -> ObjectTask:
    """Build a network, ready for training.

    A run that ``begins`` has the weights of ``start_from``; else a checkpoint will fill them.
    Raises SetupError for several processes.
    """
    recipe, device = plan.recipe, distribution.device
    if distribution.world_size > 1:
        raise SetupError(
            f"the task {recipe.task.type} is trained by one process",
            found=f"{distribution.world_size} processes",
            do="start it without torchrun",
        )
    set_threads(recipe.runtime)
    network = object_network(recipe, recipe.seed)
    if begins:
        start_from_weights(network, recipe)
    network = network.to(device)
    average = None
    if recipe.average_weights is not None:
        average = WeightAverage(network, recipe.average_weights.decay)
    return ObjectTask(
        plan=plan,
        data=data,
        device=device,
        precision=choose_precision(recipe.runtime, device),
        model=network,
        average=average,
        batches=ObjectBatches(recipe, data.train, device),
        masks=Masks(),
    )
