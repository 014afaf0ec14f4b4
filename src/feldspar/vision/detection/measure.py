"""Measures on held-out images with objects: average precision, or the overlap of classes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from feldspar.core.progress import progress
from feldspar.recipe.sections.detection import DetectionTask, SegmentationTask
from feldspar.recipe.vision_root import VisionRecipe
from feldspar.vision.detection.average_precision import (
    TWELVE,
    Kind,
    Result,
    average_precision,
    encoded,
)
from feldspar.vision.detection.coco import CocoSplit
from feldspar.vision.detection.detectors import Detector
from feldspar.vision.detection.examples import (
    IGNORED,
    PixelExample,
    fill_of,
    pixel_example,
)
from feldspar.vision.detection.fitting import Fit
from feldspar.vision.detection.segmenter import Segmenter
from feldspar.vision.read_ahead import ExampleT, ReadAhead
from feldspar.vision.task import Normalisation, normalisation

KINDS: dict[str, Kind] = {"box": "bbox", "mask": "segm"}
"""Kinds of average precision by their prefix in the names of measures."""
MASK_LEVEL = 0.5
"""Smallest probability of a pixel that belongs to a found object."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out images, and how they are given to a network."""

    split: CocoSplit
    recipe: VisionRecipe
    side: int
    """Side of the square that images are fitted into."""
    batch_images: int
    device: torch.device
    autocast: Callable[[], AbstractContextManager[object]]

    def batches(
        self, read: Callable[[int, int], ExampleT]
    ) -> Iterator[tuple[Sequence[int], list[ExampleT]]]:
        """Yield the numbers of images and what ``read`` gives of them; one batch is read ahead."""
        ahead = ReadAhead(read, self.recipe.runtime.workers)
        numbers = range(len(self.split))
        with progress("validate", len(numbers), "images") as advance:
            for part, examples in ahead.in_batches(numbers, self.batch_images, self.side):
                yield part, examples
                advance(len(part))

    @cached_property
    def normalisation(self) -> Normalisation:
        """The map of bytes (b, c, side, side) to numbers, on the device."""
        return normalisation(self.recipe).to(self.device)

    def normalised(self, pixels: list[Tensor]) -> Tensor:
        """Return images (b, c, side, side) on the device, of mean 0 and deviation 1."""
        return self.normalisation(torch.stack(pixels).to(self.device))


def object_measures(task: DetectionTask | SegmentationTask) -> list[str]:
    """Return the names of what a task measures."""
    if isinstance(task, SegmentationTask):
        return ["validation/mean_iou", "validation/pixel_accuracy"]
    kinds = ("box", "mask") if task.has_masks else ("box",)
    return [f"validation/{kind}_{name}" for kind in kinds for name in TWELVE]


def measure_detector(
    detector: Detector, held_out: HeldOut, results: list[Result] | None = None
) -> dict[str, float]:
    """Return COCO's twelve numbers, for boxes as ``validation/box_AP``, ..., and for masks.

    ``results``, where given, receives the found objects. The detector's mode is as before.
    """
    found = find_objects(detector, held_out)
    if results is not None:
        results += found
    kinds = ("box", "mask") if detector.has_masks else ("box",)
    return {
        f"validation/{kind}_{name}": value
        for kind in kinds
        for name, value in average_precision(held_out.split, found, KINDS[kind]).items()
    }


@torch.no_grad()
def find_objects(detector: Detector, held_out: HeldOut) -> list[Result]:
    """Return what a detector finds in all images, in pixels of the images themselves."""
    split, fill = held_out.split, fill_of(held_out.recipe)
    was_training = detector.training
    detector.eval()

    def read(index: int, side: int) -> Tensor:
        image = split.images[index]
        return Fit(image.height, image.width, side).pixels(split.read(index), fill)

    results: list[Result] = []
    for numbers, pixels in held_out.batches(read):
        with held_out.autocast():
            found = detector.detect(held_out.normalised(pixels))
        for number, objects in zip(numbers, found, strict=True):
            results += _results(split, number, held_out.side, objects)
    detector.train(was_training)
    return results


def _results(
    split: CocoSplit, number: int, side: int, objects: dict[str, Tensor]
) -> Iterator[Result]:
    """Yield the found objects of an image as COCO's results."""
    image = split.images[number]
    fit = Fit(image.height, image.width, side)
    boxes = fit.boxes_back(objects["boxes"].float().cpu())
    masks = None
    if "masks" in objects:
        masks = fit.masks_back(objects["masks"].float().cpu()[:, 0]) >= MASK_LEVEL
    rows = zip(boxes.tolist(), objects["labels"].tolist(), objects["scores"].tolist(), strict=True)
    for place, ((left, top, right, bottom), label, score) in enumerate(rows):
        result: Result = {
            "image_id": image.id,
            "category_id": split.category_ids[label - 1],
            "bbox": [left, top, right - left, bottom - top],
            "score": score,
        }
        if masks is not None:
            result["segmentation"] = encoded(masks[place].numpy())
        yield result


@torch.no_grad()
def measure_segmenter(segmenter: Segmenter, held_out: HeldOut) -> dict[str, float]:
    """Return ``validation/mean_iou`` and ``validation/pixel_accuracy``.

    The first is the mean over classes, background included, of intersection by union of all
    images' pixels; a class that no pixel has is left out. The segmenter's mode is as before.
    """
    split, classes = held_out.split, len(held_out.split.classes) + 1
    was_training = segmenter.training
    segmenter.eval()
    counts = torch.zeros(classes, classes, dtype=torch.int64)
    read = partial(_read_pixels, split, fill_of(held_out.recipe))
    for _, examples in held_out.batches(read):
        with held_out.autocast():
            logits = segmenter.logits(held_out.normalised([own.pixels for own in examples]))
        found = logits.argmax(1).cpu()
        counts += confusion(torch.stack([own.classes for own in examples]), found, classes)
    segmenter.train(was_training)
    return {
        "validation/mean_iou": mean_overlap(counts),
        "validation/pixel_accuracy": float(counts.diagonal().sum() / counts.sum().clamp(min=1)),
    }


def _read_pixels(split: CocoSplit, fill: Tensor, index: int, side: int) -> PixelExample:
    return pixel_example(split, index, side, fill)


def confusion(truth: Tensor, found: Tensor, classes: int) -> Tensor:
    """Count pixels (classes, classes) by true class (row) and found class; ignored ones are left
    out."""
    counted = truth != IGNORED
    pairs = truth[counted] * classes + found[counted]
    return torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def mean_overlap(counts: Tensor) -> float:
    """Return the mean intersection by union of the classes that occur."""
    right = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - right
    occurs = union > 0
    return float((right[occurs] / union[occurs]).mean()) if occurs.any() else 0.0
