"""Shape of a RevBiFPN, and the seven of the paper (2206.14098; widths from the authors' code)."""

from typing import Annotated, Self

from pydantic import Field, PositiveInt, model_validator

from feldspar.core.errors import UserError, nearest
from feldspar.recipe.base import Settings

STEM_STRIDE = 4
"""Image pixels along each side that become one position of the finest stream."""
MOST_STREAMS = 4
"""Streams for which the paper sets kernels, expansions and squeeze ratios."""


class RevBiFPNSettings(Settings):
    """Streams, depth, neck and head of the network; stream 0 is the finest."""

    channels: tuple[PositiveInt, ...]
    """Width of each stream; stream i has 1 / (4 * 2^i) of the image's resolution."""
    neck_channels: tuple[PositiveInt, ...]
    """Width of each stream after the neck."""
    head_width: PositiveInt
    """Width of the convolution before pooling."""
    n_classes: PositiveInt = 1000
    """Rows of the classifier."""
    image_channels: PositiveInt = 3
    """Channels of the image; the stem repeats them, in turn, to a 16th of the finest stream's."""
    residual_layers: PositiveInt = 2
    """Layers of reversible residual blocks before each silo."""
    extra_silos: Annotated[int, Field(ge=0)] = 2
    """Silos after the ones that add a stream."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of pooled features that is dropped in training."""
    stochastic_depth: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the last stage's branches that is dropped; it grows linearly from stage to stage."""

    @property
    def n_streams(self) -> int:
        """Resolutions of the pyramid."""
        return len(self.channels)

    @property
    def n_stages(self) -> int:
        """Silos: those that add a stream, and the extra ones."""
        return self.n_streams - 1 + self.extra_silos

    @property
    def size_multiple(self) -> int:
        """What height and width of an image must be divisible by."""
        return STEM_STRIDE * 2 ** (self.n_streams - 1)

    @model_validator(mode="after")
    def _streams_fit(self) -> Self:
        if not 2 <= self.n_streams <= MOST_STREAMS:
            raise ValueError(f"channels: {self.n_streams} streams; 2 to {MOST_STREAMS} are known")
        if len(self.neck_channels) != self.n_streams:
            raise ValueError(
                f"neck_channels: {len(self.neck_channels)} widths for {self.n_streams} streams"
            )
        for width in self.channels:
            if width % 2:
                raise ValueError(
                    f"channels: streams are coupled in halves, which {width} does not have"
                )
        stacked, rest = divmod(self.channels[0], STEM_STRIDE**2)
        if rest or stacked < self.image_channels:
            raise ValueError(
                f"channels: the stem makes the finest stream of 16 pixels of {self.image_channels}"
                f" channels or more: {self.channels[0]} is no multiple of 16, or less than"
                f" {16 * self.image_channels}"
            )
        return self


SIZES: dict[str, tuple[int, RevBiFPNSettings]] = {
    name: (
        resolution,
        RevBiFPNSettings(
            channels=channels,
            neck_channels=neck_channels,
            head_width=head_width,
            extra_silos=extra_silos,
            dropout=dropout,
            stochastic_depth=stochastic_depth,
        ),
    )
    for (
        name,
        resolution,
        channels,
        neck_channels,
        head_width,
        extra_silos,
        dropout,
        stochastic_depth,
    ) in (
        ("S0", 224, (48, 64, 80, 160), (48, 64, 128, 320), 1280, 2, 0.25, 0.0),
        ("S1", 256, (64, 80, 96, 208), (64, 80, 160, 416), 1696, 2, 0.25, 0.0),
        ("S2", 256, (96, 128, 160, 320), (96, 128, 256, 640), 2560, 2, 0.3, 0.0),
        ("S3", 288, (128, 160, 208, 416), (128, 160, 336, 848), 3408, 3, 0.3, 0.05),
        ("S4", 320, (192, 256, 320, 640), (192, 256, 512, 1280), 5120, 4, 0.4, 0.1),
        ("S5", 352, (256, 336, 416, 848), (256, 336, 672, 1696), 6816, 4, 0.4, 0.1),
        ("S6", 352, (320, 416, 528, 1056), (320, 416, 848, 2128), 8528, 5, 0.6, 0.3),
    )
}
"""Side of the image in pixels, and settings, of each size in the paper."""


def revbifpn_settings(size: str, n_classes: int = 1000) -> RevBiFPNSettings:
    """The paper's ``size`` (S0 to S6). Raises UserError for another name."""
    if size not in SIZES:
        close = nearest(size, SIZES)
        raise UserError(
            f"there is no RevBiFPN of size {size!r}",
            allowed=SIZES,
            do=f"use {close}" if close else None,
        )
    return SIZES[size][1].model_copy(update={"n_classes": n_classes})
