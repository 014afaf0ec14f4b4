"""Parameters and multiply-adds of a RevBiFPN from its settings, exactly, without torch.

Two conventions: ``conv+linear`` counts convolutions and the classifier; the paper's own counter
adds 1 for each bias of a convolution, 2 for each entry that batch norm writes and 11 for each that
bilinear interpolation writes. The latter gives the authors' printed integers for S0 to S6.
"""

from dataclasses import dataclass

from feldspar.core.errors import UserError
from feldspar.recipe.sections.vision import STEM_STRIDE, RevBiFPNSettings
from feldspar.vision.layout import Bottleneck, NetworkLayout, network_layout

NORM_COST = 2
UPSAMPLING_COST = 11


@dataclass(frozen=True)
class Counts:
    """Of one or more blocks; multiply-adds and entries are those of one image."""

    parameters: int = 0
    convolutions: int = 0
    batch_norms: int = 0
    convolution_macs: int = 0
    linear_macs: int = 0
    biases_added: int = 0
    """Of convolutions, one for each entry that they write."""
    entries_normalised: int = 0
    entries_upsampled: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Counts(*(ours + theirs for ours, theirs in pairs))

    @property
    def macs(self) -> int:
        """Multiply-adds by the convention ``conv+linear``."""
        return self.convolution_macs + self.linear_macs

    @property
    def paper_macs(self) -> int:
        """Multiply-adds as the authors' counter prints them."""
        norms, upsampling = (
            NORM_COST * self.entries_normalised,
            UPSAMPLING_COST * self.entries_upsampled,
        )
        return self.macs + self.biases_added + norms + upsampling


@dataclass(frozen=True)
class StageCounts:
    """Of a stage of the backbone."""

    residual_layers: tuple[Counts, ...]
    silo: Counts


@dataclass(frozen=True)
class NetworkCounts:
    """Of a whole network, by part; the stem has no parameters and no multiply-adds."""

    stages: tuple[StageCounts, ...]
    neck: tuple[Counts, ...]
    """One a stream."""
    head: tuple[Counts, ...]
    """The blocks that lead down, the last convolution, the classifier."""

    @property
    def backbone(self) -> Counts:
        """Of all stages."""
        parts = [part for stage in self.stages for part in (*stage.residual_layers, stage.silo)]
        return sum(parts, Counts())

    @property
    def total(self) -> Counts:
        """Of everything."""
        return sum((*self.neck, *self.head), self.backbone)


def count_network(settings: RevBiFPNSettings, height: int, width: int) -> NetworkCounts:
    """Counts for images of ``height`` x ``width`` pixels.

    Raises UserError where the coarsest stream does not divide them.
    """
    require_divisible(settings, height, width)
    layout = network_layout(settings)
    areas = [
        (height * width) // (STEM_STRIDE * 2**stream) ** 2 for stream in range(settings.n_streams)
    ]
    neck = [_block(block, area) for block, area in zip(layout.neck, areas, strict=True)]
    head = [_block(block, area) for block, area in zip(layout.head, areas, strict=False)]
    head.append(_convolution(settings.neck_channels[-1], settings.head_width, 1, areas[-1]))
    head.append(
        Counts(
            parameters=(settings.head_width + 1) * settings.classes,
            linear_macs=settings.head_width * settings.classes,
        )
    )
    return NetworkCounts(tuple(_stages(layout, areas)), tuple(neck), tuple(head))


def require_divisible(settings: RevBiFPNSettings, height: int, width: int) -> None:
    """Raise UserError unless every stream has a whole number of rows and columns."""
    multiple = settings.size_multiple
    if height < 1 or width < 1 or height % multiple or width % multiple:
        raise UserError(
            f"height and width of images must be multiples of {multiple}",
            found=f"{height} x {width}",
            do="resize, crop or pad the images",
        )


def _stages(layout: NetworkLayout, areas: list[int]) -> list[StageCounts]:
    stages = []
    for stage in layout.stages:
        layers = [
            sum(
                (
                    _block(block, areas[coupling.stream])
                    for coupling in layer
                    for block in (coupling.first, coupling.second)
                ),
                Counts(),
            )
            for layer in stage.residual_layers
        ]
        branches = (
            _block(fusion.branch, areas[fusion.source])
            for fusion in (*stage.silo.down, *stage.silo.up)
        )
        stages.append(StageCounts(tuple(layers), sum(branches, Counts())))
    return stages


def _block(block: Bottleneck, area: int) -> Counts:
    """Of one bottleneck that reads maps of ``area`` positions."""
    inner, squeezed = block.channels_inner, block.channels_squeezed
    area_out = area // block.stride**2
    counts = _convolution(inner, inner, block.kernel, area_out, groups=inner)
    if block.expansion != 1:
        counts += _convolution(block.channels_in, inner, 1, area)
    if squeezed:
        counts += Counts(
            parameters=2 * inner * squeezed + inner + squeezed,
            convolutions=2,
            convolution_macs=2 * inner * squeezed,
            biases_added=inner + squeezed,
        )
    counts += _convolution(inner, block.channels_out, 1, area_out)
    if block.upsampling > 1:
        counts += Counts(
            entries_upsampled=block.channels_out * area_out * block.upsampling**2,
        )
    return counts


def _convolution(
    channels_in: int, channels_out: int, kernel: int, area_out: int, groups: int = 1
) -> Counts:
    """A convolution without bias and the batch norm after it."""
    weights = channels_in // groups * channels_out * kernel**2
    return Counts(
        parameters=weights + 2 * channels_out,
        convolutions=1,
        batch_norms=1,
        convolution_macs=weights * area_out,
        entries_normalised=channels_out * area_out,
    )
