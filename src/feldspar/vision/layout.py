"""The convolution blocks of a RevBiFPN and their places, from its settings.

The modules are built from this list. Kernels, expansions and squeeze ratios by stream are those of
the authors' code.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from feldspar.recipe.sections.vision import RevBiFPNSettings

RESIDUAL_KERNELS = (3, 5, 5, 5)
EXPANSIONS = (1, 1, 2, 2)
SQUEEZE_RATIOS = (0.25, 0.25, 0.125, 0.0)
EXTRA_KERNEL = (0, 0, 0, 2)
OUTPUT_KERNEL = 5
OUTPUT_EXPANSIONS = (1, 2, 2, 2)
OUTPUT_SQUEEZE_RATIOS = (0.25, 0.25, 0.125, 0.125)


@dataclass(frozen=True)
class Bottleneck:
    """One mobile inverted bottleneck (MBConv) without a skip connection."""

    channels_in: int
    channels_out: int
    kernel: int
    stride: int = 1
    expansion: int = 1
    squeeze_ratio: float = 0.0
    upsampling: int = 1
    """Factor of the bilinear interpolation at its end."""
    drop_probability: float = 0.0
    """The probability of stochastic depth."""

    @property
    def channels_inner(self) -> int:
        """Channels of the depthwise convolution."""
        return self.expansion * self.channels_in

    @property
    def channels_squeezed(self) -> int:
        """Channels inside squeeze-and-excitation, a share of ``channels_in``; 0 for none."""
        return max(1, int(self.channels_in * self.squeeze_ratio)) if self.squeeze_ratio else 0


@dataclass(frozen=True)
class Coupling:
    """The halves of one stream: ``b += first(a); a += second(b)``."""

    stream: int
    first: Bottleneck
    second: Bottleneck


@dataclass(frozen=True)
class Fusion:
    """A branch from one stream to another."""

    source: int
    target: int
    branch: Bottleneck


@dataclass(frozen=True)
class Silo:
    """A RevSilo: branches from fine to coarse, then from coarse to fine, which can be undone."""

    n_inputs: int
    n_outputs: int
    down: tuple[Fusion, ...]
    """Coarsest target first: a stream is read before anything is added to it."""
    up: tuple[Fusion, ...]
    """Finest target first, for the same reason."""


@dataclass(frozen=True)
class Stage:
    """Layers of residual couplings on all streams, then a silo."""

    residual_layers: tuple[tuple[Coupling, ...], ...]
    silo: Silo


@dataclass(frozen=True)
class NetworkLayout:
    """All blocks of a network, in the order in which they run."""

    stages: tuple[Stage, ...]
    neck: tuple[Bottleneck, ...]
    """One block for each stream; empty for a network without a neck."""
    head: tuple[Bottleneck, ...]
    """Block i goes from the resolution of stream i to that of the next stream."""


def network_layout(settings: RevBiFPNSettings) -> NetworkLayout:
    """Return the blocks of the network that ``settings`` describe."""
    widths = settings.head_channels
    return NetworkLayout(
        stages=tuple(_stages(settings)),
        neck=tuple(
            _output_block(stream, settings.channels[stream], width)
            for stream, width in enumerate(settings.neck_channels or ())
        ),
        head=tuple(
            _output_block(stream, widths[stream], widths[stream + 1], stride=2)
            for stream in range(settings.n_streams - 1)
        ),
    )


def _stages(settings: RevBiFPNSettings) -> Iterator[Stage]:
    n_present = 1
    for number in range(1, settings.n_stages + 1):
        probability = settings.stochastic_depth * number / settings.n_stages
        layer = tuple(
            _coupling(stream, settings.channels[stream], probability) for stream in range(n_present)
        )
        n_outputs = min(n_present + 1, settings.n_streams)
        silo = _silo(settings.channels, n_present, n_outputs, probability)
        yield Stage((layer,) * settings.residual_layers, silo)
        n_present = n_outputs


def _coupling(stream: int, width: int, drop_probability: float) -> Coupling:
    half = Bottleneck(
        width // 2,
        width // 2,
        RESIDUAL_KERNELS[stream],
        expansion=EXPANSIONS[stream],
        squeeze_ratio=SQUEEZE_RATIOS[stream],
        drop_probability=drop_probability,
    )
    return Coupling(stream, half, half)


def _silo(channels: tuple[int, ...], n_inputs: int, n_outputs: int, probability: float) -> Silo:
    down = [
        # A stream that is created has nothing but its branches: none of them is ever dropped.
        _down(channels, source, target, probability if target < n_inputs else 0.0)
        for target in reversed(range(1, n_outputs))
        for source in range(min(target, n_inputs))
    ]
    up = [
        _up(channels, source, target, probability)
        for target in range(n_outputs - 1)
        for source in range(target + 1, n_outputs)
    ]
    return Silo(n_inputs, n_outputs, tuple(down), tuple(up))


def _down(channels: tuple[int, ...], source: int, target: int, drop_probability: float) -> Fusion:
    stride = 2 ** (target - source)
    branch = Bottleneck(
        channels[source],
        channels[target],
        2 * stride - 1 + EXTRA_KERNEL[source],
        stride=stride,
        expansion=EXPANSIONS[source],
        squeeze_ratio=SQUEEZE_RATIOS[source],
        drop_probability=drop_probability,
    )
    return Fusion(source, target, branch)


def _up(channels: tuple[int, ...], source: int, target: int, drop_probability: float) -> Fusion:
    branch = Bottleneck(
        channels[source],
        channels[target],
        3 + EXTRA_KERNEL[source],
        expansion=EXPANSIONS[target],
        squeeze_ratio=SQUEEZE_RATIOS[target],
        upsampling=2 ** (source - target),
        drop_probability=drop_probability,
    )
    return Fusion(source, target, branch)


def _output_block(stream: int, channels_in: int, channels_out: int, stride: int = 1) -> Bottleneck:
    return Bottleneck(
        channels_in,
        channels_out,
        OUTPUT_KERNEL,
        stride=stride,
        expansion=OUTPUT_EXPANSIONS[stream],
        squeeze_ratio=OUTPUT_SQUEEZE_RATIOS[stream],
    )
