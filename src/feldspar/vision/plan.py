"""What a vision recipe will do and cost before anything is spent; no torch."""

from dataclasses import asdict, dataclass
from typing import Any

from feldspar.core.errors import UserError
from feldspar.plan.timeline import Timeline, build_timeline
from feldspar.recipe.amounts import Unit
from feldspar.recipe.vision_root import VisionRecipe
from feldspar.vision.counts import NetworkCounts, count_network
from feldspar.vision.memory import VisionMemory, step_memory

FLOPS_PER_MAC = 2
PASSES = 3
"""A backward pass costs two forward passes."""


@dataclass(frozen=True)
class VisionPlan:
    """A recipe's timeline, in images, and the counts of its network at each phase's resolution."""

    recipe: VisionRecipe
    timeline: Timeline
    counts: tuple[NetworkCounts, ...]
    train_images: int | None
    """Of an epoch, where known."""

    def flops_per_image(self, phase_index: int) -> float:
        """Forward and backward FLOPs of one training image."""
        return float(PASSES * FLOPS_PER_MAC * self.counts[phase_index].total.macs)

    def memory(self, phase_index: int) -> VisionMemory:
        """Bytes of a step, estimated."""
        phase, optimizer = self.recipe.phases[phase_index], self.recipe.optimizer
        return step_memory(
            self.recipe.model,
            phase.resolution,
            phase.batch.images,
            self.recipe.runtime.activation_memory,
            len(optimizer.only_rule.moments),
            self.recipe.average_weights is not None,
        )

    def warnings(self, precision: object = None) -> list[str]:
        """What is allowed and yet worth knowing; ``precision`` is the type of the products."""
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
        """Everything that is known before anything is spent, as plain values."""
        flops = sum(
            self.flops_per_image(phase.index) * phase.length for phase in self.timeline.phases
        )
        return {
            "name": self.recipe.name,
            "parameters": {"total": self.timeline.parameters},
            "images": self.timeline.length,
            "steps": self.timeline.steps,
            "train_images": self.train_images,
            "flops": flops,
            "phases": [self._phase(index) for index in range(len(self.counts))],
            "warnings": self.warnings(),
        }

    def _phase(self, index: int) -> dict[str, Any]:
        phase, settings = self.timeline.phases[index], self.recipe.phases[index]
        first = self.timeline.next_step(phase.start_position)
        assert first is not None, "a phase has at least one step"
        total, memory = self.counts[index].total, self.memory(index)
        return {
            "name": phase.name,
            "images": phase.length,
            "epochs": None if self.train_images is None else phase.length / self.train_images,
            "steps": phase.steps,
            "batch_images": settings.batch.images,
            "resolution": settings.resolution,
            "learning_rate": [first.learning_rate, phase.learning_rate.at(phase.end_position)],
            "weight_decay": [first.weight_decay, phase.weight_decay.at(phase.end_position)],
            "macs": {"conv+linear": total.macs, "paper counter": total.paper_macs},
            "memory_bytes": asdict(memory) | {"total": memory.total},
            "activation_memory": self.recipe.runtime.activation_memory,
        }


def plan_vision_recipe(recipe: VisionRecipe, train_images: int | None = None) -> VisionPlan:
    """The plan of a recipe; ``train_images`` defaults to what it declares.

    Raises UserError, which names the key, for a length in epochs without their size.
    """
    size = train_images if train_images is not None else recipe.images.train_images
    for index, phase in enumerate(recipe.phases):
        if phase.length.unit is Unit.EPOCHS and size is None:
            raise UserError(
                f"phases.{index}.length: {phase.length} needs the number of training images",
                do="put the images in place, or declare images.train_images",
            )
    counts = tuple(
        count_network(recipe.model, phase.resolution, phase.resolution) for phase in recipe.phases
    )
    parameters = counts[0].total.parameters
    sizes = None if size is None else {"train": size}
    return VisionPlan(recipe, build_timeline(recipe, parameters, sizes), counts, size)
