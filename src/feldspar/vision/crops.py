"""Crops and sizes of images: bytes (channels, height, width) in and out.

Resizing is bilinear with antialiasing, on float32, rounded to bytes.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from feldspar.recipe.sections.vision import CentreCrop, PaddedCrop, RandomResizedCrop

ATTEMPTS = 10
"""Number of draws for a part that fits, before the middle of the image is taken."""


def centre_crop(image: Tensor, resolution: int, share: float = 1.0) -> Tensor:
    """Cut the middle square, whose side is ``share`` of the shorter one, and resize it."""
    height, width = image.shape[1:]
    side = max(1, round(share * min(height, width)))
    top, left = (height - side) // 2, (width - side) // 2
    return resize(image[:, top : top + side, left : left + side], resolution)


def training_crop(
    image: Tensor,
    resolution: int,
    crop: RandomResizedCrop | PaddedCrop | CentreCrop,
    chance: np.random.Generator,
) -> Tensor:
    """Cut the part that ``chance`` draws, and resize it to ``resolution``."""
    if isinstance(crop, CentreCrop):
        return centre_crop(image, resolution)
    if isinstance(crop, PaddedCrop):
        padded = F.pad(centre_crop(image, resolution), (crop.pixels,) * 4)
        top, left = chance.integers(0, 2 * crop.pixels + 1, size=2).tolist()
        return padded[:, top : top + resolution, left : left + resolution]
    top, left, height, width = _random_part(image.shape[1], image.shape[2], crop, chance)
    return resize(image[:, top : top + height, left : left + width], resolution)


def _random_part(
    height: int, width: int, crop: RandomResizedCrop, chance: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draw top, left, height and width: the area uniformly, the ratio in its logarithm."""
    low, high = map(math.log, crop.aspect_ratio)
    for _ in range(ATTEMPTS):
        area = height * width * chance.uniform(*crop.area)
        ratio = math.exp(chance.uniform(low, high))
        part_width, part_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < part_width <= width and 0 < part_height <= height:
            top = int(chance.integers(0, height - part_height + 1))
            left = int(chance.integers(0, width - part_width + 1))
            return top, left, part_height, part_width
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


def resize(image: Tensor, resolution: int) -> Tensor:
    """Squeeze or stretch an image to a square."""
    if image.shape[1:] == (resolution, resolution):
        return image
    resized = F.interpolate(
        image[None].float(), (resolution, resolution), mode="bilinear", antialias=True
    )
    return resized[0].round_().clamp_(0, 255).to(torch.uint8)
