"""Classification of images: the loss, and the batches of a run, one micro-batch a step.

Batch norm sees a step's images at once; to divide a step would change what is computed.
"""

from collections import deque

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feldspar.core.streams import stream_seed
from feldspar.plan.timeline import StepPlan
from feldspar.recipe.sections.vision import ClassificationTask
from feldspar.recipe.vision_root import VisionRecipe
from feldspar.vision.augment import Mixing
from feldspar.vision.images import LabelledImages, channel_statistics
from feldspar.vision.loader import IMAGES_AT_ONCE, TrainingImages, stacked
from feldspar.vision.random_stream import OwnStream
from feldspar.vision.read_ahead import ReadAhead


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
    """The training images with their targets, in the order of the run.

    Each process takes its contiguous part of a step.
    """

    cut_tokens = 0
    """Images are read whole."""

    def __init__(
        self,
        recipe: VisionRecipe,
        images: LabelledImages,
        device: torch.device,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._recipe = recipe
        self._device = device
        self._rank = rank
        self._world_size = world_size
        self._normalise = normalisation(recipe).to(device)
        self._mix = Mixing(recipe.augmentation)
        training = TrainingImages(images, recipe.augmentation, recipe.seed)
        self._loader = ReadAhead(training.read, recipe.runtime.workers, IMAGES_AT_ONCE)
        self._positions: deque[int] = deque()

    def prefetch(self, step: StepPlan) -> None:
        """Start to load this process's part of a step."""
        resolution = self._recipe.phases[step.phase.index].resolution
        share = step.sequences // self._world_size
        first = step.position_before + self._rank * share
        positions = [*range(first, first + share)]
        if self._borrows:
            positions.insert(0, first - 1 if self._rank else step.position_after - 1)
        self._loader.request(positions, resolution)
        self._positions.append(step.position_before)

    @property
    def prefetched(self) -> bool:
        """True while a step is being loaded."""
        return self._loader.waiting > 0

    def take(self) -> list[tuple[Tensor, ...]]:
        """Return the images and targets of the step that was asked for first."""
        pixels, labels = stacked(self._loader.take())
        images = self._normalise(pixels.to(self._device, non_blocking=True))
        task = self._recipe.task
        assert isinstance(task, ClassificationTask), "images in classes are classified"
        targets = smoothed_targets(labels, self._recipe.model.classes, task.label_smoothing).to(
            self._device
        )
        position = self._positions.popleft()
        if self._mix:
            with OwnStream(stream_seed(self._recipe.seed, "images.mix", position)):
                images, targets = self._mix(images, targets)
        if self._borrows:
            images, targets = images[1:], targets[1:]
        return [(images, targets)]

    @property
    def _borrows(self) -> bool:
        """True where the image before this process's first is read too, to be mixed with it.

        The pairs are then those of a single process.
        """
        return bool(self._mix) and self._world_size > 1

    def count(self, micro_batch: tuple[Tensor, ...]) -> int:
        """Count images."""
        return len(micro_batch[0])

    def close(self) -> None:
        """Stop loading."""
        self._loader.close()


def smoothed_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Return probabilities (b, classes): 1 - ``smoothing`` at the label, the rest over all."""
    return F.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
