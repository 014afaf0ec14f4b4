"""Images of any size fitted into a square: scaled to its side, padded at the right and below."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Fit:
    """Fits an image of ``height`` x ``width`` into a square of ``side`` pixels, and back."""

    height: int
    width: int
    side: int

    @property
    def inner(self) -> tuple[int, int]:
        """Height and width of the part that shows the image; its longer side is the square's."""
        scale = self.side / max(self.height, self.width)
        return max(1, round(self.height * scale)), max(1, round(self.width * scale))

    @property
    def factors(self) -> Tensor:
        """Factors of left, top, right and bottom of a box from the image to the square."""
        high, wide = self.inner
        across, down = wide / self.width, high / self.height
        return torch.tensor([across, down, across, down])

    def pixels(self, image: Tensor, fill: Tensor) -> Tensor:
        """Return bytes (c, side, side) of an image; ``fill`` (c,) is what lies around it."""
        fitted = fill[:, None, None].expand(-1, self.side, self.side).clone()
        high, wide = self.inner
        fitted[:, :high, :wide] = resized(image, high, wide)
        return fitted

    def masks(self, masks: Tensor, fill: int = 0) -> Tensor:
        """Return masks (n, side, side) of masks (n, h, w), by nearest neighbours."""
        high, wide = self.inner
        fitted = masks.new_full((len(masks), self.side, self.side), fill)
        if len(masks):
            small = F.interpolate(masks[None].float(), (high, wide), mode="nearest-exact")[0]
            fitted[:, :high, :wide] = small.to(masks.dtype)
        return fitted

    def boxes_back(self, boxes: Tensor) -> Tensor:
        """Return boxes (n, 4) of the square as boxes of the image, cut at its borders."""
        limits = torch.tensor([self.width, self.height] * 2, dtype=boxes.dtype)
        return (boxes / self.factors).clamp(min=0).minimum(limits)

    def masks_back(self, masks: Tensor) -> Tensor:
        """Return probabilities (n, h, w) of the image from those of the square."""
        high, wide = self.inner
        inner = masks[:, None, :high, :wide]
        size = (self.height, self.width)
        if not len(masks) or inner.shape[2:] == size:
            return inner[:, 0]
        return F.interpolate(inner, size, mode="bilinear", align_corners=False)[:, 0]


def resized(image: Tensor, height: int, width: int) -> Tensor:
    """Return bytes (c, height, width) of an image: bilinear, smoothed where it becomes smaller."""
    if image.shape[1:] == (height, width):
        return image
    scaled = F.interpolate(image[None].float(), (height, width), mode="bilinear", antialias=True)
    return scaled[0].round_().clamp_(0, 255).to(torch.uint8)
