"""Random changes of training images; the same random numbers give the same pixels."""

import math

import numpy as np
import torch
from torch import Tensor

from feldspar.recipe.sections.vision import AugmentationSettings
from feldspar.vision.crops import training_crop
from feldspar.vision.random_operations import rand_augment

ERASED_AREA = (0.02, 1 / 3)
ERASED_RATIO = (0.3, 1 / 0.3)
"""Range of the erased share of the image; below it, of height by width (1708.04896, section 3)."""


def augment(
    image: Tensor, resolution: int, settings: AugmentationSettings, chance: np.random.Generator
) -> Tensor:
    """Change bytes (c, h, w) of any size at random into bytes (c, resolution, resolution).

    The changes come in this order: crop, mirror image, RandAugment, erasing.
    """
    image = training_crop(image, resolution, settings.crop, chance)
    if chance.random() < settings.flip:
        image = image.flip(2)
    if settings.rand_augment is not None:
        image = rand_augment(image, settings.rand_augment, chance)
    if chance.random() < settings.erase:
        image = erased(image, chance)
    return image


def erased(image: Tensor, chance: np.random.Generator) -> Tensor:
    """Return the image with a random rectangle replaced by noise."""
    channels, height, width = image.shape
    area = height * width * chance.uniform(*ERASED_AREA)
    low, high = map(math.log, ERASED_RATIO)
    ratio = math.exp(chance.uniform(low, high))
    rows = min(max(round(math.sqrt(area * ratio)), 1), height)
    columns = min(max(round(math.sqrt(area / ratio)), 1), width)
    top = int(chance.integers(0, height - rows + 1))
    left = int(chance.integers(0, width - columns + 1))
    noise = chance.integers(0, 256, size=(channels, rows, columns), dtype=np.uint8)
    image = image.clone()
    image[:, top : top + rows, left : left + columns] = torch.from_numpy(noise)
    return image
