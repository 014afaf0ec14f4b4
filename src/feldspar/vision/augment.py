"""Crops and random changes of images by torchvision (extra ``vision``), on bytes (c, h, w).

torchvision is imported inside functions: it takes seconds, and a plan needs none of it.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from feldspar.core.errors import missing_extra
from feldspar.recipe.sections.vision import (
    AugmentationSettings,
    CentreCrop,
    PaddedCrop,
    RandAugment,
    RandomResizedCrop,
)

Transform = Callable[[Tensor], Tensor]

STRONGEST = 10.0
"""The largest ``rand_augment.magnitude``."""
BINS = 1001
"""Strengths of torchvision's RandAugment: hundredths of ours."""


def torchvision_transforms() -> Any:
    """Return ``torchvision.transforms.v2``. Raises SetupError where it is not installed."""
    try:
        from torchvision.transforms import v2
    except ImportError:
        raise missing_extra("torchvision", "vision") from None
    return v2


def training_transform(settings: AugmentationSettings, resolution: int) -> Transform:
    """Return the changes of a training image of any size, to (c, resolution, resolution).

    They come in this order: crop, mirror image, RandAugment, erasing. All of them draw from torch's
    generator; see ``random_stream``.
    """
    v2 = torchvision_transforms()
    changes: list[Transform] = [_training_crop(settings.crop, resolution)]
    if settings.flip:
        changes.append(v2.RandomHorizontalFlip(settings.flip))
    if settings.rand_augment is not None:
        changes.append(RandomOperations(settings.rand_augment))
    if settings.erase:
        changes.append(ErasingByNoise(settings.erase))
    return v2.Compose(changes)


def centre_crop(image: Tensor, resolution: int, share: float = 1.0) -> Tensor:
    """Cut the middle square, whose side is ``share`` of the shorter one, and resize it."""
    functional = torchvision_transforms().functional
    side = max(1, round(share * min(image.shape[1:])))
    square = functional.center_crop(image, [side, side])
    return functional.resize(square, [resolution, resolution], antialias=True)


def _training_crop(crop: RandomResizedCrop | PaddedCrop | CentreCrop, resolution: int) -> Transform:
    v2 = torchvision_transforms()
    if isinstance(crop, RandomResizedCrop):
        return v2.RandomResizedCrop(
            resolution, scale=crop.area, ratio=crop.aspect_ratio, antialias=True
        )
    squares: list[Transform] = [lambda image: centre_crop(image, resolution)]
    if isinstance(crop, PaddedCrop):
        squares.append(v2.RandomCrop(resolution, padding=crop.pixels))
    return v2.Compose(squares)


class RandomOperations:
    """RandAugment (1909.13719), where an operation may be skipped and strengths vary.

    torchvision's transform has one strength for all operations, and applies each that it draws.
    """

    def __init__(self, settings: RandAugment) -> None:
        self._settings = settings
        self._operation = cache(self._make_operation)

    def __call__(self, image: Tensor) -> Tensor:
        """Apply the operations that are drawn; what moves in from outside is black."""
        settings = self._settings
        for _ in range(settings.operations):
            if float(torch.rand(())) >= settings.probability:
                continue
            strength = settings.magnitude + settings.deviation * float(torch.randn(()))
            share = min(max(strength, 0.0), STRONGEST) / STRONGEST
            image = self._operation(round(share * (BINS - 1)))(image)
        return image

    def _make_operation(self, magnitude: int) -> Transform:
        v2 = torchvision_transforms()
        return v2.RandAugment(
            num_ops=1,
            magnitude=magnitude,
            num_magnitude_bins=BINS,
            interpolation=v2.InterpolationMode.BILINEAR,
        )


class ErasingByNoise:
    """Random erasing (1708.04896): a random rectangle becomes random bytes.

    torchvision's transform chooses the rectangle; its own noise is for normalised images.
    """

    def __init__(self, probability: float) -> None:
        self._probability = probability
        v2 = torchvision_transforms()
        self._rectangles, self._erase = v2.RandomErasing(value="random"), v2.functional.erase

    def __call__(self, image: Tensor) -> Tensor:
        """Erase with the probability of the settings, where a rectangle fits into the image."""
        if float(torch.rand(())) >= self._probability:
            return image
        drawn = self._rectangles.make_params([image])
        if drawn["v"] is None:
            return image
        noise = torch.randint(0, 256, drawn["v"].shape, dtype=torch.uint8)
        return self._erase(image, **{**drawn, "v": noise})


class Mixing:
    """MixUp (1710.09412) and CutMix (1905.04899) of the images of a step with their targets.

    Each image is mixed with the one before it, and the first with the last. Where both are set, one
    of them is drawn for each step.
    """

    def __init__(self, settings: AugmentationSettings) -> None:
        self._mix: Any = None
        if settings.mixup or settings.cutmix:
            v2 = torchvision_transforms()
            kinds = ((v2.MixUp, settings.mixup), (v2.CutMix, settings.cutmix))
            self._mix = v2.RandomChoice([kind(alpha=alpha) for kind, alpha in kinds if alpha])

    def __bool__(self) -> bool:
        """Tell whether images are mixed at all."""
        return self._mix is not None

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mix images (b, c, h, w) of numbers, and probabilities (b, classes)."""
        return self._mix(images, targets)
