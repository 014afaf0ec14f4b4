"""Classification of images: the loss, and the batches of a run, one micro-batch a step.

Batch norm sees a step's images at once; to divide a step would change what is computed.
"""

from collections import deque

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feldspar.core.streams import numpy_stream
from feldspar.plan.timeline import StepPlan
from feldspar.recipe.sections.vision import ClassificationTask
from feldspar.recipe.vision_root import VisionRecipe
from feldspar.vision.images import LabelledImages, channel_statistics
from feldspar.vision.loader import ImageLoader, TrainingImages


class ClassificationLoss(nn.Module):
    """Summed cross-entropy of a network that gives logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of normalised images (b, c, r, r) and probabilities (b, classes)."""
        logits = self.network(images).float()
        return -(targets * F.log_softmax(logits, dim=-1)).sum()


class Normalisation(nn.Module):
    """From bytes to numbers of mean 0 and deviation 1 in each channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalise bytes (b, c, h, w); the shape is kept."""
        return (pixels.float() / 255 - self.mean) / self.std


def normalisation(recipe: VisionRecipe) -> Normalisation:
    """Return the normalisation of a recipe's images."""
    return Normalisation(*channel_statistics(recipe.images, recipe.model.image_channels))


class ImageBatches:
    """The training images with their targets, in the order of the run."""

    cut_tokens = 0
    """Images are read whole."""

    def __init__(
        self,
        recipe: VisionRecipe,
        images: LabelledImages,
        device: torch.device,
    ) -> None:
        self._recipe = recipe
        self._device = device
        self._normalise = normalisation(recipe).to(device)
        training = TrainingImages(images, recipe.augmentation, recipe.seed)
        self._loader = ImageLoader(training.read, recipe.runtime.workers)
        self._positions: deque[int] = deque()

    def prefetch(self, step: StepPlan) -> None:
        """Start to load a step."""
        resolution = self._recipe.phases[step.phase.index].resolution
        self._loader.request(step.position_before, step.position_after, resolution)
        self._positions.append(step.position_before)

    @property
    def prefetched(self) -> bool:
        """True while a step is being loaded."""
        return self._loader.waiting > 0

    def take(self) -> list[tuple[Tensor, ...]]:
        """Return the images and targets of the step that was asked for first."""
        pixels, labels = self._loader.take()
        images = self._normalise(pixels.to(self._device, non_blocking=True))
        task = self._recipe.task
        assert isinstance(task, ClassificationTask), "images in classes are classified"
        targets = smoothed_targets(labels, self._recipe.model.classes, task.label_smoothing).to(
            self._device
        )
        position, strength = self._positions.popleft(), self._recipe.augmentation.mixup
        if strength:
            share = numpy_stream(self._recipe.seed, "images.mixup", position).beta(
                strength, strength
            )
            images, targets = (mixed(values, share) for values in (images, targets))
        return [(images, targets)]

    def count(self, micro_batch: tuple[Tensor, ...]) -> int:
        """Count images."""
        return len(micro_batch[0])

    def close(self) -> None:
        """Stop loading."""
        self._loader.close()


def smoothed_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Return probabilities (b, classes): 1 - ``smoothing`` at the label, the rest over all."""
    return F.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes


def mixed(values: Tensor, share: float) -> Tensor:
    """Mix ``share`` of each image with the rest of its partner: first with last, and so on."""
    return share * values + (1 - share) * values.flip(0)
