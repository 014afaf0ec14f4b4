"""The task of a vision model: a network on its device that learns to classify images."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from feldspar.plan.batches import check_divides
from feldspar.plan.timeline import StepPlan
from feldspar.runtime.device import choose_precision
from feldspar.runtime.distributed import Distribution
from feldspar.runtime.threads import set_threads
from feldspar.sparsity.masks import Masks
from feldspar.vision.batch_norm import synchronise_batch_norms
from feldspar.vision.data import ImageData
from feldspar.vision.image_task import ImageTask, averaged
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
class Classification(ImageTask[RevBiFPN]):
    """A network that learns the classes of images."""

    data: ImageData
    module: nn.Module
    """The model with its loss, wrapped for the run's processes."""
    batches: ImageBatches

    @property
    def uses_dropout(self) -> bool:
        """True where the forward pass draws random numbers."""
        settings = self.plan.recipe.model
        return settings.dropout > 0 or settings.stochastic_depth > 0

    def state(self) -> dict[str, Any]:
        """Return the digest of the training images, who changes them, and their classes."""
        return {
            "training_images": self.data.digest,
            TRANSFORMS_KEY: TRANSFORMS,
            CLASSES_KEY: list(self.data.train.classes),
        }

    def validate(self, step: StepPlan) -> dict[str, float]:
        """Measure loss, top-1 and top-5 of the validation images, at the phase's resolution."""
        recipe = self.plan.recipe
        phase = recipe.phases[step.phase.index]
        return measure(
            self.measured,
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
    network = RevBiFPN(recipe.model, recipe.runtime.activation_memory, recipe.seed)
    if begins:
        start_network(network, recipe)
    network = network.to(device)
    average = averaged(plan, network)
    if distribution.world_size > 1:
        synchronise_batch_norms(network)
    return Classification(
        plan=plan,
        distribution=distribution,
        precision=choose_precision(recipe.runtime, device),
        model=network,
        average=average,
        masks=Masks(),
        data=data,
        module=distribution.wrap(ClassificationLoss(network)),
        batches=ImageBatches(
            recipe, data.train, device, distribution.rank, distribution.world_size
        ),
    )
