"""Labelled images of one split: their number, their classes, and the pixels of each."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from feldspar.recipe.sections.detection import ObjectImages
from feldspar.recipe.sections.vision import ImagesSettings

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class LabelledImages:
    """A split. ``read(index)`` gives pixels as bytes (channels, height, width), of any size."""

    classes: tuple[str, ...]
    labels: np.ndarray
    """The number of each image's class, (n,) int64."""
    read: Callable[[int], Tensor]
    digest: str
    """A value that changes with the images."""

    def __len__(self) -> int:
        return len(self.labels)


def channel_statistics(
    settings: ImagesSettings | ObjectImages, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel, for pixels from 0 to 1."""
    means, stds = ((0.5,), (0.5,)) if channels == 1 else (IMAGENET_MEAN, IMAGENET_STD)
    return settings.mean or means, settings.std or stds
