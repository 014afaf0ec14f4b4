"""The pyramid that torchvision's detectors read: RevBiFPN's streams through a neck.

It maps images to an ordered mapping "0", "1", ... (finest first) and "pool", a level above the
coarsest stream, all of ``out_channels`` channels, as the detectors ask of a backbone.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feldspar.core.errors import missing_extra
from feldspar.core.streams import stream_seed
from feldspar.recipe.sections.detection import Neck
from feldspar.recipe.sections.vision import STEM_STRIDE, RevBiFPNSettings
from feldspar.reversible.chain import ActivationMemory
from feldspar.vision.feature_network import FeatureNetwork

POOL = "pool"
"""Name of the level above the coarsest stream."""


class PyramidBackbone(nn.Module):
    """RevBiFPN's streams through a neck, ready for ``FasterRCNN``, ``MaskRCNN`` and the others.

    Raises SetupError where torchvision, which has the neck fpn, is not installed.
    """

    def __init__(
        self,
        settings: RevBiFPNSettings,
        neck: Neck = "fpn",
        width: int = 256,
        memory: ActivationMemory = "reversible",
        seed: int = 0,
        neck_norm: bool = False,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            self.body = FeatureNetwork(settings, memory, seed)
            torch.manual_seed(stream_seed(seed, "vision.neck"))
            make = HighResolutionNeck if neck == "hrfpn" else feature_pyramid
            self.neck = make(settings.channels, width, neck_norm)
        self.out_channels = width
        self.strides = level_strides(settings)
        """Image pixels of a position of each level, finest first."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map images (b, image channels, h, w) to levels (b, out_channels, h / s, w / s) by name.

        Raises UserError as ``RevBiFPN.features``.
        """
        streams = self.body.features(images)
        named = OrderedDict((str(index), stream) for index, stream in enumerate(streams))
        return self.neck(named)


def level_strides(settings: RevBiFPNSettings) -> tuple[int, ...]:
    """Return the stride of each level, that of "pool" last."""
    return tuple(STEM_STRIDE * 2**level for level in range(settings.n_streams + 1))


def level_names(settings: RevBiFPNSettings) -> list[str]:
    """Return the names of the levels that are streams, finest first."""
    return [str(index) for index in range(settings.n_streams)]


def feature_pyramid(channels: tuple[int, ...], width: int, norm: bool) -> nn.Module:
    """Return torchvision's FPN (1612.03144), whose level "pool" takes every second position.

    With ``norm`` batch norm follows each of its convolutions.
    """
    try:
        from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool
    except ImportError:
        raise missing_extra("torchvision", "detection") from None
    layer = nn.BatchNorm2d if norm else None
    return FeaturePyramidNetwork(list(channels), width, LastLevelMaxPool(), layer)


class HighResolutionNeck(nn.Module):
    """HRFPN (1904.04514): streams joined at the finest resolution, then pooled to each level.

    With ``norm`` batch norm follows each convolution.
    """

    def __init__(self, channels: tuple[int, ...], width: int, norm: bool = False) -> None:
        super().__init__()

        def convolution(channels_in: int, kernel: int) -> nn.Sequential:
            layer = nn.Conv2d(channels_in, width, kernel, padding=kernel // 2, bias=not norm)
            nn.init.kaiming_uniform_(layer.weight, a=1)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            return nn.Sequential(layer, *([nn.BatchNorm2d(width)] if norm else []))

        self.join = convolution(sum(channels), 1)
        self.levels = nn.ModuleList(convolution(width, 3) for _ in range(len(channels) + 1))

    def forward(self, streams: dict[str, Tensor]) -> dict[str, Tensor]:
        """Map streams by name to levels of one width; "pool" has half of the coarsest stream."""
        joined = self.join(torch.cat(at_finest(list(streams.values())), dim=1))
        levels: dict[str, Tensor] = OrderedDict()
        for index, (name, convolution) in enumerate(
            zip((*streams, POOL), self.levels, strict=True)
        ):
            pooled = F.avg_pool2d(joined, 2**index, ceil_mode=True) if index else joined
            levels[name] = convolution(pooled)
        return levels


def at_finest(streams: list[Tensor]) -> list[Tensor]:
    """Interpolate streams (b, c_i, h / 2^i, w / 2^i) bilinearly to the size of the first."""
    size = streams[0].shape[2:]
    return [
        stream if stream.shape[2:] == size else F.interpolate(stream, size, mode="bilinear")
        for stream in streams
    ]
