"""The transform of a detector of torchvision, for images that have one size and are normalised."""

from typing import Any

import torch
from torch import Tensor, nn

Objects = list[dict[str, Tensor]]


class UnchangedImages(nn.Module):
    """Takes images as they are; the results are made by the transform that it replaces.

    torchvision's own option to leave out the resizing holds in training only.
    """

    def __init__(self, replaced: nn.Module) -> None:
        super().__init__()
        self.replaced: Any = replaced

    def forward(self, images: list[Tensor], targets: Objects | None = None) -> Any:
        """Return the images as torchvision's list of images, and the objects."""
        from torchvision.models.detection.image_list import ImageList

        height, width = images[0].shape[-2:]
        return ImageList(torch.stack(images), [(height, width)] * len(images)), targets

    def postprocess(self, found: Objects, *sizes: list[tuple[int, int]]) -> Objects:
        """Return found objects with masks of the images' size."""
        return self.replaced.postprocess(found, *sizes)
