"""The convolution block of a RevBiFPN: a mobile inverted bottleneck without a skip connection.

[expand 1x1, batch norm, Hardswish], depthwise convolution, batch norm, Hardswish,
[squeeze-and-excitation], project 1x1, batch norm, [bilinear upsampling], [stochastic depth].
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feldspar.vision.batch_norm import BatchNorm
from feldspar.vision.layout import Bottleneck

NORM_EPSILON = 1e-3
NORM_MOMENTUM = 0.1


class NormalisedConvolution(nn.Module):
    """A convolution without bias, batch norm, and Hardswish unless ``activated`` is false."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activated: bool = True,
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            channels_in,
            channels_out,
            kernel,
            stride,
            padding=(kernel - 1) // 2,
            groups=groups,
            bias=False,
        )
        self.norm = BatchNorm(channels_out, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)
        self._activated = activated

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c_in, h, w) to (b, c_out, h / stride, w / stride)."""
        x = self.norm(self.convolution(x))
        return F.hardswish(x) if self._activated else x


class SqueezeExcitation(nn.Module):
    """A gate for each channel, computed from the means of all channels."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels of (b, c, h, w); the shape is kept."""
        inner = F.hardswish(self.squeeze(x.mean((2, 3), keepdim=True)))
        return x * F.hardsigmoid(self.excite(inner))


class InvertedBottleneck(nn.Module):
    """The block that ``shape`` describes."""

    def __init__(self, shape: Bottleneck) -> None:
        super().__init__()
        self._shape = shape
        inner = shape.channels_inner
        layers: dict[str, nn.Module] = {}
        if shape.expansion != 1:
            layers["expand"] = NormalisedConvolution(shape.channels_in, inner)
        layers["depthwise"] = NormalisedConvolution(
            inner, inner, shape.kernel, shape.stride, groups=inner
        )
        if shape.channels_squeezed:
            layers["excitation"] = SqueezeExcitation(inner, shape.channels_squeezed)
        layers["project"] = NormalisedConvolution(inner, shape.channels_out, activated=False)
        self.layers = nn.ModuleDict(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c_in, h, w) to (b, c_out, h / stride * upsampling, w / stride * upsampling)."""
        for layer in self.layers.values():
            x = layer(x)
        if self.training and self._shape.drop_probability:
            x = drop_images(x, self._shape.drop_probability)
        if self._shape.upsampling > 1:
            x = F.interpolate(x, scale_factor=self._shape.upsampling, mode="bilinear")
        return x


def drop_images(x: Tensor, probability: float) -> Tensor:
    """Zero some images of (b, ...) and divide the others by the share that is kept.

    This is stochastic depth (1603.09382).
    """
    kept = 1 - probability
    mask = torch.empty(len(x), *[1] * (x.ndim - 1), dtype=x.dtype, device=x.device)
    return x * mask.bernoulli_(kept).div_(kept)
