"""Parameters, multiply-adds and bytes of a RevBiFPN, asked of the network on the meta device."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from feldspar.plan.quick_shapes import QuickShapes
from feldspar.plan.storage_bytes import peak_bytes, saved_activations
from feldspar.recipe.sections.vision import RevBiFPNSettings
from feldspar.reversible.chain import ActivationMemory
from feldspar.vision.detection.networks import ObjectNetwork
from feldspar.vision.revbifpn import RevBiFPN
from feldspar.vision.task import ClassificationLoss

NORM_COST = 2
UPSAMPLING_COST = 11

aten = torch.ops.aten


def shapes_of(settings: RevBiFPNSettings, memory: ActivationMemory = "reversible") -> RevBiFPN:
    """Return the network of ``settings`` on the meta device: shapes without values."""
    with torch.device("meta"), QuickShapes():
        return RevBiFPN(settings, memory)


@dataclass
class MultiplyAdds:
    """Work of one image, by kind of operation.

    ``conv+linear`` counts convolutions and the classifier. The counter of the paper's authors adds
    1 for each bias of a convolution, 2 for each entry that batch norm writes and 11 for each entry
    that bilinear interpolation writes; it gives their printed integers for S0 to S6.
    """

    convolutions: int = 0
    linear: int = 0
    biases_added: int = 0
    """Entries that convolutions with a bias write."""
    entries_normalised: int = 0
    entries_upsampled: int = 0

    @property
    def total(self) -> int:
        """Multiply-adds by the convention ``conv+linear``."""
        return self.convolutions + self.linear

    @property
    def paper_total(self) -> int:
        """Multiply-adds as the authors' counter prints them."""
        norms = NORM_COST * self.entries_normalised
        return self.total + self.biases_added + norms + UPSAMPLING_COST * self.entries_upsampled


def count_multiply_adds(network: RevBiFPN, height: int, width: int) -> MultiplyAdds:
    """Count what ``network`` does to one image of ``height`` x ``width`` pixels.

    The network lies on the meta device, as ``shapes_of`` makes it. Raises UserError where the
    coarsest stream does not divide them. The network's mode is kept.
    """
    return multiply_adds_of(network, _images(network, 1, height, width))


@torch.no_grad()
def multiply_adds_of(network: nn.Module, images: Tensor) -> MultiplyAdds:
    """Count what any network does to ``images``; its mode is kept."""
    was_training = network.training
    with _Counter() as counter:
        network.eval()(images)
    network.train(was_training)
    return counter.counted


class _Counter(QuickShapes):
    """The sum of the work of the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.counted = MultiplyAdds()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        counted, operation = self.counted, func.overloadpacket
        if operation is aten.convolution:
            positions = result[:, 0].numel()
            counted.convolutions += args[1].numel() * positions
            counted.biases_added += result.numel() * (args[2] is not None)
        elif operation is aten.addmm:
            counted.linear += args[1].numel() * args[2].shape[1]
        elif operation is aten.native_batch_norm:
            counted.entries_normalised += result[0].numel()
        elif operation is aten.upsample_bilinear2d:
            counted.entries_upsampled += result.numel()
        return result


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one training step in float32, by part."""

    weights: int
    """Parameters and running statistics."""
    gradients: int
    optimizer: int
    average: int
    """The moving average of weights and running statistics."""
    activations: int
    """The most that autograd keeps for the backward pass at one time."""
    working: int
    """All else that is alive at the worst moment: images, streams, gradients of activations."""

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return sum(vars(self).values())


def step_memory(
    network: RevBiFPN | ObjectNetwork,
    resolution: int,
    batch_images: int,
    states_per_weight: int = 0,
    averages: bool = False,
    loss: nn.Module | None = None,
) -> StepMemory:
    """Run a training step of ``network``, which is on the meta device, and return its bytes.

    The optimizer keeps ``states_per_weight`` tensors of each weight's shape. ``loss`` maps images
    to the loss of a step; by default it is that of classification.
    """
    gradients = _bytes(*network.parameters())
    weights = gradients + _bytes(*network.buffers())
    images = _images(network, batch_images, resolution, resolution)
    if loss is None:
        saved, alive = measured_step(network, images, network.settings.classes)
    else:
        saved, alive = measured_passes(network, loss, images)
    return StepMemory(
        weights=weights,
        gradients=gradients,
        optimizer=states_per_weight * gradients,
        average=weights * averages,
        activations=saved,
        working=alive - saved,
    )


def measured_step(network: nn.Module, images: Tensor, classes: int) -> tuple[int, int]:
    """Return the bytes that a step's backward pass keeps, and all that are alive, at their most.

    Weights, running statistics and gradients are left out. The network gives ``classes`` logits for
    each of the images; it may be on any device, and its gradients are overwritten.
    """
    targets = images.new_empty((len(images), classes))
    return measured_passes(network, ClassificationLoss(network), images, targets)


def measured_passes(network: nn.Module, loss: nn.Module, *inputs: Tensor) -> tuple[int, int]:
    """Return the bytes of forward and backward pass of ``loss`` as ``measured_step`` does."""
    for parameter in network.parameters():
        parameter.grad = parameter.new_empty(parameter.shape)

    def step() -> None:
        loss(*inputs).backward()

    with saved_activations([*network.parameters(), *network.buffers()]) as saved:
        alive = peak_bytes(step)
    return saved.most_bytes, alive + _bytes(*inputs)


def _images(network: RevBiFPN | ObjectNetwork, *sizes: int) -> Tensor:
    batch, height, width = sizes
    return torch.empty((batch, network.settings.image_channels, height, width), device="meta")


def _bytes(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
