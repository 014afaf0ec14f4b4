"""Examples with objects: those of training by their position in the run."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from feldspar.core.streams import numpy_stream
from feldspar.recipe.vision_root import VisionRecipe
from feldspar.vision.detection.coco import CocoImage, CocoSplit, boxes_of, labels_of
from feldspar.vision.detection.fitting import Fit
from feldspar.vision.images import channel_statistics
from feldspar.vision.read_ahead import EpochOrder

IGNORED = 255
"""Label of a pixel that is neither learned nor measured."""


@dataclass(frozen=True)
class ObjectExample:
    """An image in its square, with its objects."""

    pixels: Tensor
    """Bytes (c, side, side)."""
    boxes: Tensor
    """(n, 4), left, top, right and bottom in pixels of the square."""
    labels: Tensor
    """(n,), from 1 on."""
    masks: Tensor | None
    """(n, side, side) of 0 and 1."""


@dataclass(frozen=True)
class PixelExample:
    """An image in its square, with the class of each pixel."""

    pixels: Tensor
    """Bytes (c, side, side)."""
    classes: Tensor
    """(side, side): 0 for background, a category's label, or ``IGNORED``."""


class TrainingOrder:
    """Which image of a split each position shows, and whether it is mirrored."""

    def __init__(self, split: CocoSplit, recipe: VisionRecipe) -> None:
        self._recipe = recipe
        self._order = EpochOrder(len(split), recipe.seed)

    def at(self, position: int) -> tuple[int, bool]:
        """Return the number of the image at a position, and whether its mirror image is shown."""
        chance = numpy_stream(self._recipe.seed, "images.augment", position)
        return self._order.image_at(position), chance.random() < self._recipe.augmentation.flip


def object_example(
    split: CocoSplit, index: int, side: int, fill: Tensor, with_masks: bool, mirrored: bool = False
) -> ObjectExample:
    """Read an image with the objects that are learned. Raises UserError as ``CocoSplit.read``."""
    image = split.images[index]
    fit, objects = Fit(image.height, image.width, side), image.learned
    pixels = fit.pixels(split.read(index), fill)
    boxes = boxes_of(objects) * fit.factors
    masks = fit.masks(masks_of(split, image)) if with_masks else None
    if mirrored:
        wide = fit.inner[1]
        pixels, boxes = _mirror(pixels, wide), boxes[:, [2, 1, 0, 3]] * _SIGNS + _ENDS * wide
        masks = None if masks is None else _mirror(masks, wide)
    return ObjectExample(pixels, boxes, labels_of(objects), masks)


def pixel_example(
    split: CocoSplit, index: int, side: int, fill: Tensor, mirrored: bool = False
) -> PixelExample:
    """Read an image with the class of each pixel. Raises UserError as ``CocoSplit.read``."""
    image = split.images[index]
    fit = Fit(image.height, image.width, side)
    pixels = fit.pixels(split.read(index), fill)
    classes = fit.masks(torch.from_numpy(class_map(split, image))[None], IGNORED)[0]
    if mirrored:
        wide = fit.inner[1]
        pixels, classes = _mirror(pixels, wide), _mirror(classes, wide)
    return PixelExample(pixels, classes)


def masks_of(split: CocoSplit, image: CocoImage) -> Tensor:
    """Return the masks of the objects that are learned, bytes (n, height, width)."""
    if not image.learned:
        return torch.zeros((0, image.height, image.width), dtype=torch.uint8)
    masks = [split.mask(image, item) for item in image.learned]
    return torch.from_numpy(np.stack(masks))


def class_map(split: CocoSplit, image: CocoImage) -> np.ndarray:
    """Return the class of each pixel, (height, width): smaller objects lie on larger ones."""
    classes = np.zeros((image.height, image.width), dtype=np.int64)
    masks = [(split.mask(image, item), item) for item in image.objects]
    for mask, item in sorted(masks, key=lambda pair: -int(pair[0].sum())):
        classes[mask > 0] = IGNORED if item.crowd else item.label
    return classes


_SIGNS = torch.tensor([-1.0, 1.0, -1.0, 1.0])
_ENDS = torch.tensor([1.0, 0.0, 1.0, 0.0])


def _mirror(values: Tensor, wide: int) -> Tensor:
    """Mirror the part (..., :wide) that shows the image."""
    mirrored = values.clone()
    mirrored[..., :wide] = values[..., :wide].flip(-1)
    return mirrored


def fill_of(recipe: VisionRecipe) -> Tensor:
    """Return the bytes (c,) around an image: the mean, which becomes about 0."""
    means, _ = channel_statistics(recipe.images, recipe.model.image_channels)
    return torch.tensor(means).mul(255).round().to(torch.uint8)
