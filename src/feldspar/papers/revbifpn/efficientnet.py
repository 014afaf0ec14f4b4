"""EfficientNet B0 to B7 (1905.11946), the networks that the paper compares its memory with.

Only shapes matter here: nothing is trained. Layers and their order are those of torchvision's
``efficientnet_b0`` to ``efficientnet_b7``, with which the tests compare parameters and bytes.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feldspar.plan.quick_shapes import QuickShapes
from feldspar.vision.bottleneck import drop_images

STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
"""Expansion, kernel, stride, output channels and blocks of each stage of B0."""
SIZES: dict[str, tuple[float, float, int, float]] = {
    "B0": (1.0, 1.0, 224, 0.2),
    "B1": (1.0, 1.1, 240, 0.2),
    "B2": (1.1, 1.2, 260, 0.3),
    "B3": (1.2, 1.4, 300, 0.3),
    "B4": (1.4, 1.8, 380, 0.4),
    "B5": (1.6, 2.2, 456, 0.4),
    "B6": (1.8, 2.6, 528, 0.5),
    "B7": (2.0, 3.1, 600, 0.5),
}
"""Multiple of B0's channels, multiple of its blocks, pixels of an image's side, dropout."""
STEM, STOCHASTIC_DEPTH = 32, 0.2


class EfficientNet(nn.Module):
    """One of ``SIZES``, with 1,000 classes."""

    def __init__(self, size: str, classes: int = 1000) -> None:
        super().__init__()
        width, depth, _, self._dropout = SIZES[size]
        channels = rounded(STEM * width)
        layers: list[nn.Module] = [activated(3, channels, kernel=3, stride=2)]
        counts = [math.ceil(blocks * depth) for *_, blocks in STAGES]
        number, total = 0, sum(counts)
        for (expansion, kernel, stride, base, _), count in zip(STAGES, counts, strict=True):
            for index in range(count):
                out, step = rounded(base * width), stride if index == 0 else 1
                dropped = STOCHASTIC_DEPTH * number / total
                layers.append(MBConv(channels, out, expansion, kernel, step, dropped))
                channels, number = out, number + 1
        layers.append(activated(channels, 4 * channels))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(4 * channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (b, 3, h, w) to logits (b, classes)."""
        pooled = F.adaptive_avg_pool2d(self.features(images), 1).flatten(1)
        return self.classifier(F.dropout(pooled, self._dropout, self.training))


class MBConv(nn.Module):
    """[Expand], depthwise convolution, squeeze-and-excitation, project, [skip]."""

    def __init__(
        self, entering: int, out: int, expansion: int, kernel: int, stride: int, dropped: float
    ) -> None:
        super().__init__()
        inner = rounded(entering * expansion)
        self.expand = activated(entering, inner) if inner != entering else nn.Identity()
        self.depthwise = activated(inner, inner, kernel, stride, groups=inner)
        self.squeeze = nn.Conv2d(inner, max(1, entering // 4), 1)
        self.excite = nn.Conv2d(max(1, entering // 4), inner, 1)
        self.project = normalised(inner, out)
        self._skips = stride == 1 and entering == out
        self._dropped = dropped

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, entering, h, w) to (b, out, h / stride, w / stride)."""
        inner = self.depthwise(self.expand(x))
        gate = F.silu(self.squeeze(F.adaptive_avg_pool2d(inner, 1)))
        out = self.project(torch.sigmoid(self.excite(gate)) * inner)
        if not self._skips:
            return out
        return x + (drop_images(out, self._dropped) if self._dropped and self.training else out)


def normalised(
    entering: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Return a convolution without bias, and batch norm."""
    margin = (kernel - 1) // 2
    convolution = nn.Conv2d(
        entering, out, kernel, stride, padding=margin, groups=groups, bias=False
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(out))


def activated(
    entering: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Return a convolution without bias, batch norm, and SiLU."""
    return normalised(entering, out, kernel, stride, groups).append(nn.SiLU())


def rounded(channels: float, multiple: int = 8) -> int:
    """Round to a multiple of 8, but by no more than a tenth downwards."""
    nearest = max(multiple, int(channels + multiple / 2) // multiple * multiple)
    return nearest + multiple if nearest < 0.9 * channels else nearest


def efficientnet_shapes(size: str) -> EfficientNet:
    """Return a network on the meta device: shapes without values."""
    with torch.device("meta"), QuickShapes():
        return EfficientNet(size)
