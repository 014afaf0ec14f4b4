"""The task of a network that finds objects or classes of pixels, on its device with its images."""

from dataclasses import dataclass
from typing import Any

from feldspar.core.errors import SetupError
from feldspar.plan.timeline import StepPlan
from feldspar.runtime.device import choose_precision
from feldspar.runtime.distributed import Distribution
from feldspar.runtime.threads import set_threads
from feldspar.sparsity.masks import Masks
from feldspar.vision.data import ObjectData
from feldspar.vision.detection.batches import ObjectBatches
from feldspar.vision.detection.detectors import Detector
from feldspar.vision.detection.measure import HeldOut, measure_detector, measure_segmenter
from feldspar.vision.detection.networks import ObjectNetwork, object_network, start_from_weights
from feldspar.vision.image_task import ImageTask, averaged
from feldspar.vision.load import CLASSES_KEY
from feldspar.vision.plan import VisionPlan


@dataclass
class ObjectTask(ImageTask[ObjectNetwork]):
    """A network that learns the objects of images."""

    data: ObjectData
    batches: ObjectBatches

    uses_dropout = True
    """Detectors draw the anchors and regions that they learn from."""

    @property
    def module(self) -> ObjectNetwork:
        """The network, which maps a micro-batch to its loss."""
        return self.model

    def state(self) -> dict[str, Any]:
        """Return the digest of the training images and the names of their categories."""
        return {"training_images": self.data.digest, CLASSES_KEY: list(self.data.train.classes)}

    def validate(self, step: StepPlan) -> dict[str, float]:
        """Measure the validation images at the phase's resolution."""
        recipe = self.plan.recipe
        phase = recipe.phases[step.phase.index]
        held_out = HeldOut(
            self.data.validation,
            recipe,
            phase.resolution,
            phase.batch.images,
            self.distribution.device,
            self.autocast,
        )
        return measure_network(self.measured, held_out)


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
    return ObjectTask(
        plan=plan,
        distribution=distribution,
        precision=choose_precision(recipe.runtime, device),
        model=network,
        average=averaged(plan, network),
        masks=Masks(),
        data=data,
        batches=ObjectBatches(recipe, data.train, device),
    )
