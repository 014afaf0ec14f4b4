"""RandAugment (1909.13719): operations of random strength on images of bytes (c, h, w).

Strength 10 of its fourteen operations is: 30 degrees, a shear of 0.3, a shift of 0.45 of the side,
factors of 0.1 to 1.9, four bits kept, inversion of every pixel. Pixels from outside
the image are black.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from feldspar.recipe.sections.vision import RandAugment

STRONGEST = 10.0
LUMINANCE = (0.299, 0.587, 0.114)
SMOOTHING = ((1, 1, 1), (1, 5, 1), (1, 1, 1))
"""Weights, over 13, of the blurred image that sharpness moves away from."""


def rand_augment(image: Tensor, settings: RandAugment, chance: np.random.Generator) -> Tensor:
    """Apply the operations that ``chance`` draws."""
    names = chance.integers(len(OPERATIONS), size=settings.operations)
    for number in names.tolist():
        strength = settings.magnitude + settings.deviation * chance.standard_normal()
        strength = min(max(strength, 0.0), STRONGEST) / STRONGEST
        # Signs and coins are drawn whether they are used or not: one draw more shifts nothing.
        sign = 1.0 if chance.random() < 0.5 else -1.0
        if chance.random() < settings.probability:
            image = OPERATIONS[number](image, strength, sign)
    return image


def _bytes(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)


def _identity(image: Tensor, strength: float, sign: float) -> Tensor:
    return image


def _autocontrast(image: Tensor, strength: float, sign: float) -> Tensor:
    low = image.amin((1, 2), keepdim=True).float()
    high = image.amax((1, 2), keepdim=True).float()
    stretched = (image - low) * (255 / (high - low).clamp(min=1))
    return torch.where(high > low, _bytes(stretched), image)


def _equalize(image: Tensor, strength: float, sign: float) -> Tensor:
    return torch.stack([_equalized(plane) for plane in image])


def _equalized(plane: Tensor) -> Tensor:
    counts = torch.bincount(plane.flatten().long(), minlength=256)
    step = int(counts.sum() - counts[int(plane.max())]) // 255
    if step == 0:
        return plane
    before = counts.cumsum(0) - counts
    table = ((before + step // 2) // step).clamp(max=255).to(torch.uint8)
    return table[plane.long()]


def _posterize(image: Tensor, strength: float, sign: float) -> Tensor:
    dropped = round(4 * strength)
    return image & (0xFF << dropped & 0xFF)


def _solarize(image: Tensor, strength: float, sign: float) -> Tensor:
    return torch.where(image >= 256 * (1 - strength), 255 - image, image)


def _blend(base: Tensor, image: Tensor, strength: float, sign: float) -> Tensor:
    """Move an image away from ``base`` (sign 1) or towards it (sign -1)."""
    factor = 1 + sign * 0.9 * strength
    return _bytes(base + factor * (image - base))


def _gray(image: Tensor) -> Tensor:
    values = image.float()
    if len(image) == 1:
        return values
    weights = torch.tensor(LUMINANCE).view(-1, 1, 1)
    return (weights * values).sum(0, keepdim=True)


def _color(image: Tensor, strength: float, sign: float) -> Tensor:
    return _blend(_gray(image), image, strength, sign)


def _contrast(image: Tensor, strength: float, sign: float) -> Tensor:
    return _blend(_gray(image).mean(), image, strength, sign)


def _brightness(image: Tensor, strength: float, sign: float) -> Tensor:
    return _blend(torch.zeros(()), image, strength, sign)


def _sharpness(image: Tensor, strength: float, sign: float) -> Tensor:
    kernel = torch.tensor(SMOOTHING, dtype=torch.float32).view(1, 1, 3, 3) / 13
    values = image.float()[:, None]
    blurred = F.conv2d(F.pad(values, (1, 1, 1, 1), mode="replicate"), kernel)
    return _blend(blurred[:, 0], image, strength, sign)


def _moved(image: Tensor, rows: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    """Take each pixel from the place that ``rows`` give: a matrix from (x, y, 1) to (x, y).

    The middle is 0, and half a side is 1.
    """
    matrix = torch.tensor([rows])
    places = F.affine_grid(matrix, [1, *image.shape], align_corners=False)
    return _bytes(F.grid_sample(image[None].float(), places, align_corners=False)[0])


def _rotate(image: Tensor, strength: float, sign: float) -> Tensor:
    angle = sign * strength * math.radians(30)
    cosine, sine = math.cos(angle), math.sin(angle)
    return _moved(image, ((cosine, -sine, 0.0), (sine, cosine, 0.0)))


def _shear_x(image: Tensor, strength: float, sign: float) -> Tensor:
    return _moved(image, ((1.0, 0.3 * sign * strength, 0.0), (0.0, 1.0, 0.0)))


def _shear_y(image: Tensor, strength: float, sign: float) -> Tensor:
    return _moved(image, ((1.0, 0.0, 0.0), (0.3 * sign * strength, 1.0, 0.0)))


def _shift_x(image: Tensor, strength: float, sign: float) -> Tensor:
    return _moved(image, ((1.0, 0.0, 0.9 * sign * strength), (0.0, 1.0, 0.0)))


def _shift_y(image: Tensor, strength: float, sign: float) -> Tensor:
    return _moved(image, ((1.0, 0.0, 0.0), (0.0, 1.0, 0.9 * sign * strength)))


OPERATIONS: tuple[Callable[[Tensor, float, float], Tensor], ...] = (
    _identity,
    _autocontrast,
    _equalize,
    _posterize,
    _solarize,
    _color,
    _contrast,
    _brightness,
    _sharpness,
    _rotate,
    _shear_x,
    _shear_y,
    _shift_x,
    _shift_y,
)
