"""torchvision's transform of a detector's images, without resizing; imported with torchvision."""

from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform


class UnchangedImages(GeneralizedRCNNTransform):
    """Takes images as they are, which have one size and are normalised already.

    torchvision's own option to leave out the resizing holds in training only.
    """

    def __init__(self, channels: int, size_divisible: int) -> None:
        super().__init__(1, 1, [0.0] * channels, [1.0] * channels, size_divisible)

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Return image and objects."""
        return image, target
