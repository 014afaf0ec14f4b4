"""Bytes that a training step of a RevBiFPN holds, from its settings, without torch.

An estimate of what is alive at once in float32: what autograd keeps of each block, by the way that
activations are kept (2206.14098: the backbone's outputs only, whatever its depth).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from feldspar.recipe.sections.vision import STEM_STRIDE, RevBiFPNSettings
from feldspar.vision.counts import count_network
from feldspar.vision.layout import Bottleneck, NetworkLayout, Stage, network_layout

FLOAT_BYTES = 4


@dataclass(frozen=True)
class VisionMemory:
    """Bytes of one step by part."""

    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(vars(self).values())


def step_memory(
    settings: RevBiFPNSettings,
    resolution: int,
    batch_images: int,
    activation_memory: str,
    states_per_weight: int,
    averages: bool,
) -> VisionMemory:
    """The bytes of a step; ``states_per_weight`` tensors of a weight's shape in the optimizer."""
    weights = FLOAT_BYTES * count_network(settings, resolution, resolution).total.parameters
    entries = batch_images * activation_entries(settings, resolution, activation_memory)
    return VisionMemory(
        weights=weights,
        gradients=weights,
        optimizer=states_per_weight * weights,
        average=weights * averages,
        activations=FLOAT_BYTES * entries,
    )


def activation_entries(settings: RevBiFPNSettings, resolution: int, activation_memory: str) -> int:
    """Numbers that one image keeps alive at the worst moment of a step."""
    layout = network_layout(settings)
    areas = [(resolution // (STEM_STRIDE * 2**i)) ** 2 for i in range(settings.n_streams)]
    streams = [width * area for width, area in zip(settings.channels, areas, strict=True)]
    pyramid = sum(w * area for w, area in zip(settings.neck_channels, areas, strict=True))
    head = pyramid + _head_entries(layout, settings, areas)
    if activation_memory == "store":
        neck = sum(map(_kept_inside, layout.neck, areas))
        return (
            sum(streams)
            + neck
            + head
            + sum(_stored(stage, areas, streams) for stage in layout.stages)
        )
    blocks = [block for stage in layout.stages for block in _by_block(stage, areas)]
    # The outputs and, while the backward pass goes on, what is computed again: with its gradients.
    if activation_memory == "reversible":
        largest = max(_kept_inside(*function) for block in blocks for function in block)
        return 2 * sum(streams) + max(head, sum(streams) + 2 * largest)
    inputs = sum(sum(streams[:count]) for count in _block_inputs(layout))
    kept = [[_kept_inside(*function) for function in block] for block in blocks]
    again = max(sum(entries) + max(entries) for entries in kept)
    return inputs + sum(streams) + max(head, again)


def _kept_inside(block: Bottleneck, area: int) -> int:
    """What autograd keeps inside a block beside its input."""
    area_out = area // block.stride**2
    # Of a convolution with norm and activation: the outputs of all three.
    kept = 3 * block.channels_inner * area_out + block.channels_out * area_out
    if block.expansion != 1:
        kept += 3 * block.channels_inner * area
    if block.channels_squeezed:
        kept += block.channels_inner * area_out
    return kept


def _functions(stage: Stage, areas: list[int]) -> Iterator[tuple[Bottleneck, int]]:
    for block in _by_block(stage, areas):
        yield from block


def _by_block(stage: Stage, areas: list[int]) -> Iterator[list[tuple[Bottleneck, int]]]:
    for layer in stage.residual_layers:
        yield [
            (half, areas[coupling.stream])
            for coupling in layer
            for half in (coupling.first, coupling.second)
        ]
    fusions = (*stage.silo.down, *stage.silo.up)
    yield [(fusion.branch, areas[fusion.source]) for fusion in fusions]


def _stored(stage: Stage, areas: list[int], streams: list[int]) -> int:
    """What a stage keeps with ``store``: inside its functions, and the streams that these read."""
    kept = sum(_kept_inside(block, area) for block, area in _functions(stage, areas))
    # Each half of a coupling is read as a part of a whole stream of its own version.
    kept += sum(2 * streams[c.stream] for layer in stage.residual_layers for c in layer)
    outputs = streams[: stage.silo.n_outputs]
    return kept + 2 * sum(outputs)


def _block_inputs(layout: NetworkLayout) -> Iterator[int]:
    """How many streams each block of the backbone is given."""
    for stage in layout.stages:
        yield from [stage.silo.n_inputs] * (len(stage.residual_layers) + 1)


def _head_entries(layout: NetworkLayout, settings: RevBiFPNSettings, areas: list[int]) -> int:
    blocks = sum(_kept_inside(block, area) for block, area in zip(layout.head, areas, strict=False))
    # The sums that lead down, and the last convolution.
    sums = sum(w * area for w, area in zip(settings.neck_channels[1:], areas[1:], strict=True))
    return blocks + sums + 3 * settings.head_width * areas[-1]
