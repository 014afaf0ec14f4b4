"""The stem of a RevBiFPN: no weights, pixels become channels."""

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feldspar.core.errors import UserError
from feldspar.recipe.sections.vision import STEM_STRIDE, RevBiFPNSettings


def space_to_depth(images: Tensor, factor: int) -> Tensor:
    """Map (b, c, h, w) to (b, c * factor^2, h / factor, w / factor), losing nothing.

    All channels of a pixel stay together: the order is (row, column, channel), not that of
    ``torch.nn.functional.pixel_unshuffle``.
    """
    size, channels, height, width = images.shape
    blocks = images.reshape(size, channels, height // factor, factor, width // factor, factor)
    moved = blocks.permute(0, 3, 5, 1, 2, 4)
    return moved.reshape(size, factor**2 * channels, height // factor, width // factor)


def require_divisible(settings: RevBiFPNSettings, height: int, width: int) -> None:
    """Raise UserError unless every stream has a whole number of rows and columns."""
    multiple = settings.size_multiple
    if height < 1 or width < 1 or height % multiple or width % multiple:
        raise UserError(
            f"height and width of images must be multiples of {multiple}",
            found=f"{height} x {width}",
            do="resize, crop or pad the images",
        )


def padded_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Add zeros at the right and below until height and width are multiples; warn of each size."""
    height, width = images.shape[-2:]
    below, right = -height % multiple, -width % multiple
    if below == right == 0:
        return images
    warnings.warn(
        f"images of {height} x {width} are padded to {height + below} x {width + right}",
        stacklevel=2,
    )
    return F.pad(images, (0, right, 0, below))


class ImageTypeError(UserError, TypeError):
    """Images of integers, which no convolution takes."""


class Stem(nn.Module):
    """Channels repeated in turn to a 16th of the finest stream's, and pixels stacked."""

    def __init__(self, settings: RevBiFPNSettings) -> None:
        super().__init__()
        self._settings = settings
        stacked = settings.channels[0] // STEM_STRIDE**2
        self._channels = [number % settings.image_channels for number in range(stacked)]

    def forward(self, images: Tensor) -> Tensor:
        """Map images (b, image channels, h, w) to the finest stream, (b, c_0, h / 4, w / 4).

        Raises UserError for images of another type, number of channels or size.
        """
        expected = self._settings.image_channels
        if not images.is_floating_point():
            raise ImageTypeError(
                "images must be of a floating-point type",
                found=images.dtype,
                do="scale and normalise them first",
            )
        if images.ndim != 4 or images.shape[1] != expected:
            raise UserError(
                f"images must have the shape (images, {expected}, height, width)",
                found=tuple(images.shape),
            )
        require_divisible(self._settings, *images.shape[2:])
        channels = torch.tensor(self._channels, device=images.device)
        return space_to_depth(images.index_select(1, channels), STEM_STRIDE)
