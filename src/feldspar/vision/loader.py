"""Batches of images, read ahead by threads; they depend on positions alone.

Position p of a run is image p mod n of epoch p div n, in that epoch's own random order, with a
random stream of its own: the same pixels for any number of threads, and after a resume.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from feldspar.core.errors import InternalError
from feldspar.core.streams import numpy_stream, stream_seed
from feldspar.recipe.sections.vision import AugmentationSettings
from feldspar.vision.augment import Transform, centre_crop, training_transform
from feldspar.vision.images import LabelledImages
from feldspar.vision.random_stream import OwnStream

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
        self._order = lru_cache(maxsize=2)(self._draw_order)
        self._transform = lru_cache(maxsize=2)(self._make_transform)

    def read(self, position: int, resolution: int) -> Example:
        """Return the example at a position of the run."""
        epoch, place = divmod(position, len(self._images))
        index = int(self._order(epoch)[place])
        image, transform = self._images.read(index), self._transform(resolution)
        with OwnStream(stream_seed(self._seed, "images.augment", position)):
            pixels = transform(image)
        return pixels, int(self._images.labels[index])

    def _make_transform(self, resolution: int) -> Transform:
        return training_transform(self._settings, resolution)

    def _draw_order(self, epoch: int) -> np.ndarray:
        return numpy_stream(self._seed, "images.order", epoch).permutation(len(self._images))


class ImageLoader:
    """Batches in the order in which they are requested.

    An error while reading is raised by the ``take`` of its own request.
    """

    def __init__(self, read: Callable[[int, int], Example], workers: int) -> None:
        self._read = read
        self._pool = ThreadPoolExecutor(workers, "feldspar-images")
        self._answers: deque[list[Future[list[Example]]]] = deque()

    @property
    def waiting(self) -> int:
        """The number of requests that are not taken yet."""
        return len(self._answers)

    def request(self, positions: Sequence[int], resolution: int) -> None:
        """Ask for the examples at ``positions``, and return at once."""
        turns = [
            positions[first : first + IMAGES_AT_ONCE]
            for first in range(0, len(positions), IMAGES_AT_ONCE)
        ]
        self._answers.append(
            [self._pool.submit(self._read_turn, turn, resolution) for turn in turns]
        )

    def take(self) -> tuple[Tensor, Tensor]:
        """Wait for the oldest request; return its bytes (b, c, r, r) and labels (b,)."""
        if not self._answers:
            raise InternalError("images were taken from the loader without a request")
        examples = [example for turn in self._answers.popleft() for example in turn.result()]
        pixels, labels = zip(*examples, strict=True)
        return torch.stack(pixels), torch.tensor(labels)

    def close(self) -> None:
        """Stop the threads and forget all requests."""
        self._answers.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _read_turn(self, positions: Sequence[int], resolution: int) -> list[Example]:
        return [self._read(position, resolution) for position in positions]


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

    loader = ImageLoader(read, workers)
    try:
        for start in range(0, len(numbers), batch_images):
            loader.request(numbers[start : start + batch_images], resolution)
            if start:
                yield loader.take()
        while loader.waiting:
            yield loader.take()
    finally:
        loader.close()
