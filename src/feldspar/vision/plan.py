"""The plan of a vision recipe: what it will do and cost, before anything is spent."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from feldspar.core.errors import UserError
from feldspar.plan.quick_shapes import QuickShapes
from feldspar.plan.timeline import Timeline, build_timeline
from feldspar.recipe.amounts import Unit
from feldspar.recipe.sections.vision import ClassificationTask
from feldspar.recipe.vision_root import VisionRecipe
from feldspar.vision.detection.networks import ObjectNetwork, PlannedPass, object_network
from feldspar.vision.network_cost import (
    MultiplyAdds,
    StepMemory,
    multiply_adds_of,
    shapes_of,
    step_memory,
)
from feldspar.vision.revbifpn import RevBiFPN

FLOPS_PER_MAC = 2
PASSES = 3
"""A backward pass costs two forward passes."""


@dataclass(frozen=True)
class VisionPlan:
    """A recipe's timeline, in images, and its network's work at each phase's resolution."""

    recipe: VisionRecipe
    timeline: Timeline
    network: RevBiFPN | ObjectNetwork
    """The network on the meta device."""
    planned: nn.Module | None
    """A module that maps images to a loss with a step's shapes; None for a network that
    classifies."""
    multiply_adds: tuple[MultiplyAdds, ...]
    """Those of one image in each phase."""
    train_images: int | None
    """Images of an epoch, where they are known."""

    def flops_per_image(self, phase_index: int) -> float:
        """Return the forward and backward FLOPs of one training image."""
        return float(PASSES * FLOPS_PER_MAC * self.multiply_adds[phase_index].total)

    def flops(self) -> float:
        """Return the forward and backward FLOPs of the run."""
        return sum(
            self.flops_per_image(phase.index) * phase.length for phase in self.timeline.phases
        )

    def memory(self, phase_index: int) -> StepMemory:
        """Return the bytes of a step in float32."""
        phase, optimizer = self.recipe.phases[phase_index], self.recipe.optimizer
        return step_memory(
            self.network,
            phase.resolution,
            phase.batch.images,
            len(optimizer.only_rule.moments),
            self.recipe.average_weights is not None,
            self.planned,
        )

    def warnings(self, precision: object = None) -> list[str]:
        """Return warnings of what is allowed; ``precision`` is the type of the products."""
        runtime, bits = self.recipe.runtime, self.recipe.model.fixed_point_bits
        narrow = runtime.precision == "bfloat16" or str(precision) == "torch.bfloat16"
        if narrow and runtime.activation_memory == "reversible" and bits is None:
            drift = (
                "runtime.activation_memory: streams rebuilt under bfloat16 drift from those of the "
                "forward pass, and gradients with them; model.fixed_point_bits=14 makes them exact"
            )
            return [drift]
        return []

    def summary(self) -> dict[str, Any]:
        """Return everything that is known before anything is spent, as plain values."""
        return {
            "name": self.recipe.name,
            "parameters": {"total": self.timeline.parameters},
            "images": self.timeline.length,
            "steps": self.timeline.steps,
            "train_images": self.train_images,
            "flops": self.flops(),
            "phases": [self._phase(index) for index in range(len(self.multiply_adds))],
            "warnings": self.warnings(),
        }

    def _phase(self, index: int) -> dict[str, Any]:
        phase, settings = self.timeline.phases[index], self.recipe.phases[index]
        first = self.timeline.next_step(phase.start_position)
        assert first is not None, "a phase has at least one step"
        work, memory = self.multiply_adds[index], self.memory(index)
        return {
            "name": phase.name,
            "images": phase.length,
            "epochs": None if self.train_images is None else phase.length / self.train_images,
            "steps": phase.steps,
            "batch_images": settings.batch.images,
            "resolution": settings.resolution,
            "learning_rate": [first.learning_rate, phase.learning_rate.at(phase.end_position)],
            "weight_decay": [first.weight_decay, phase.weight_decay.at(phase.end_position)],
            "macs": {"conv+linear": work.total, "paper counter": work.paper_total},
            "memory_bytes": asdict(memory) | {"total": memory.total},
            "activation_memory": self.recipe.runtime.activation_memory,
        }


def lacks_number_of_images(recipe: VisionRecipe) -> bool:
    """Tell whether a length in epochs needs a number of images that the recipe does not declare."""
    in_epochs = any(phase.length.unit is Unit.EPOCHS for phase in recipe.phases)
    return in_epochs and recipe.images.train_images is None


def plan_vision_recipe(recipe: VisionRecipe, train_images: int | None = None) -> VisionPlan:
    """Plan a recipe; ``train_images`` defaults to what it declares.

    Raises UserError, which names the key, for a length in epochs without their size.
    """
    size = train_images if train_images is not None else recipe.images.train_images
    for index, phase in enumerate(recipe.phases):
        if phase.length.unit is Unit.EPOCHS and size is None:
            raise UserError(
                f"phases.{index}.length: {phase.length} needs the number of training images",
                do="put the images in place, or declare images.train_images",
            )
    network, planned = planned_network(recipe)
    channels = recipe.model.image_channels
    work = tuple(
        multiply_adds_of(
            network if planned is None else planned,
            torch.empty((1, channels, phase.resolution, phase.resolution), device="meta"),
        )
        for phase in recipe.phases
    )
    parameters = sum(parameter.numel() for parameter in network.parameters())
    timeline = build_timeline(recipe, parameters, None if size is None else {"train": size})
    return VisionPlan(recipe, timeline, network, planned, work, size)


def planned_network(recipe: VisionRecipe) -> tuple[RevBiFPN | ObjectNetwork, nn.Module | None]:
    """Return the network of a recipe on the meta device, and the pass that stands for a step.

    A network that classifies needs none. Raises SetupError where the network needs torchvision.
    """
    if isinstance(recipe.task, ClassificationTask):
        return shapes_of(recipe.model, recipe.runtime.activation_memory), None
    with torch.device("meta"), QuickShapes():
        network = object_network(recipe)
    return network, PlannedPass(network, recipe.task)
