"""The batches of a run on images with objects, one micro-batch a step."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from feldspar.plan.timeline import StepPlan
from feldspar.recipe.sections.detection import DetectionTask
from feldspar.recipe.vision_root import VisionRecipe
from feldspar.vision.detection.coco import CocoSplit
from feldspar.vision.detection.examples import (
    ObjectExample,
    PixelExample,
    TrainingOrder,
    fill_of,
    object_example,
    pixel_example,
)
from feldspar.vision.read_ahead import ReadAhead
from feldspar.vision.task import normalisation

Tensors = tuple[Tensor, ...]


class ObjectBatches:
    """The training images with their objects or classes of pixels, in the order of the run."""

    cut_tokens = 0
    """Images are read whole."""

    def __init__(self, recipe: VisionRecipe, split: CocoSplit, device: torch.device) -> None:
        self._recipe = recipe
        self._device = device
        self._normalise = normalisation(recipe).to(device)
        self._reader = ReadAhead(reader_of(recipe, split), recipe.runtime.workers)

    def prefetch(self, step: StepPlan) -> None:
        """Start to load a step."""
        side = self._recipe.phases[step.phase.index].resolution
        self._reader.request(range(step.position_before, step.position_after), side)

    @property
    def prefetched(self) -> bool:
        """True while a step is being loaded."""
        return self._reader.waiting > 0

    def take(self) -> list[Tensors]:
        """Return the images of the step that was asked for first, with what is learned of them."""
        pixels, *learned = packed(self._reader.take())
        images = self._normalise(pixels.to(self._device, non_blocking=True))
        return [(images, *(tensor.to(self._device) for tensor in learned))]

    def count(self, micro_batch: Tensors) -> int:
        """Count images."""
        return len(micro_batch[0])

    def close(self) -> None:
        """Stop loading."""
        self._reader.close()


def reader_of(
    recipe: VisionRecipe, split: CocoSplit
) -> Callable[[int, int], ObjectExample | PixelExample]:
    """Return a function of a position of the run, and a side, that reads an example of a task."""
    order, fill, task = TrainingOrder(split, recipe), fill_of(recipe), recipe.task

    def read(position: int, side: int) -> ObjectExample | PixelExample:
        index, mirrored = order.at(position)
        if isinstance(task, DetectionTask):
            return object_example(split, index, side, fill, task.has_masks, mirrored)
        return pixel_example(split, index, side, fill, mirrored)

    return read


def packed(examples: Sequence[ObjectExample | PixelExample]) -> Tensors:
    """Return pixels and what is learned as tensors of the batch.

    Those of objects are boxes (b, n, 4), labels (b, n) and masks (b, n, side, side), where n is the
    most objects of an image; a label of 0 says that there is no object.
    """
    pixels = torch.stack([example.pixels for example in examples])
    if isinstance(examples[0], PixelExample):
        return pixels, torch.stack(
            [own.classes for own in examples if isinstance(own, PixelExample)]
        )
    objects = [own for own in examples if isinstance(own, ObjectExample)]
    most = max(len(own.labels) for own in objects)
    boxes = torch.zeros(len(objects), most, 4)
    labels = torch.zeros(len(objects), most, dtype=torch.int64)
    for row, own in enumerate(objects):
        boxes[row, : len(own.labels)], labels[row, : len(own.labels)] = own.boxes, own.labels
    if objects[0].masks is None:
        return pixels, boxes, labels
    masks = torch.zeros(len(objects), most, *pixels.shape[2:], dtype=torch.uint8)
    for row, own in enumerate(objects):
        if own.masks is not None:
            masks[row, : len(own.labels)] = own.masks
    return pixels, boxes, labels, masks
