"""Images of a run with their labels, augmented, and those that are held out.

Position p of a run is image p mod n of epoch p div n, in that epoch's own random order, with a
random stream of its own: the same pixels for any number of threads, and after a resume.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from feldspar.core.streams import stream_seed
from feldspar.recipe.sections.vision import AugmentationSettings
from feldspar.vision.augment import Transform, centre_crop, training_transform
from feldspar.vision.images import LabelledImages
from feldspar.vision.random_stream import OwnStream
from feldspar.vision.read_ahead import EpochOrder, ReadAhead

IMAGES_AT_ONCE = 16
"""Images that a thread reads in one turn."""

Example = tuple[Tensor, int]
"""The bytes (c, r, r) of an image and its label."""


class TrainingImages:
    """The images of a run by position, augmented."""

    def __init__(self, images: LabelledImages, settings: AugmentationSettings, seed: int) -> None:
        self._images = images
        self._settings = settings
        self._seed = seed
        self._order = EpochOrder(len(images), seed)
        self._transform = lru_cache(maxsize=2)(self._make_transform)

    def read(self, position: int, resolution: int) -> Example:
        """Return the example at a position of the run."""
        index = self._order.image_at(position)
        image, transform = self._images.read(index), self._transform(resolution)
        with OwnStream(stream_seed(self._seed, "images.augment", position)):
            pixels = transform(image)
        return pixels, int(self._images.labels[index])

    def _make_transform(self, resolution: int) -> Transform:
        return training_transform(self._settings, resolution)


def stacked(examples: list[Example]) -> tuple[Tensor, Tensor]:
    """Return bytes (b, c, r, r) and labels (b,)."""
    pixels, labels = zip(*examples, strict=True)
    return torch.stack(pixels), torch.tensor(labels)


def held_out_batches(
    images: LabelledImages,
    resolution: int,
    crop: float,
    batch_images: int,
    workers: int,
    numbers: Sequence[int] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the middle of each image, or of those with ``numbers``, in order, in batches.

    One batch is read ahead.
    """
    numbers = range(len(images)) if numbers is None else numbers

    def read(index: int, resolution: int) -> Example:
        return centre_crop(images.read(index), resolution, crop), int(images.labels[index])

    ahead = ReadAhead(read, workers, IMAGES_AT_ONCE)
    for _, examples in ahead.in_batches(numbers, batch_images, resolution):
        yield stacked(examples)
