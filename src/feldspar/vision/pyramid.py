"""The pyramid of a RevBiFPN: stem, reversible backbone and, where it is wanted, the neck.

Training keeps the backbone's outputs, whatever its depth; the neck has one block a stream, which
is computed again in the backward pass.
"""

from collections.abc import Iterable
from typing import cast

from torch import Tensor, nn

from feldspar.core.errors import UserError
from feldspar.recipe.sections.vision import RevBiFPNSettings
from feldspar.reversible.chain import ActivationMemory, ReversibleChain
from feldspar.reversible.recompute import recomputed
from feldspar.vision.bottleneck import InvertedBottleneck
from feldspar.vision.layout import network_layout
from feldspar.vision.silo import residual_layer, reversible_silo
from feldspar.vision.stem import Stem, padded_to_multiple


class ReversiblePyramid(nn.Module):
    """Streams at strides 4, 8, 16 and 32 of images; without ``with_neck`` it has no neck.

    ``memory`` names what is kept for the backward pass, as in ``reversible.chain``. The initial
    values are those of torch's layers: see ``revbifpn.initialise``.
    """

    def __init__(
        self, settings: RevBiFPNSettings, memory: ActivationMemory, with_neck: bool = True
    ) -> None:
        super().__init__()
        self.settings = settings
        layout = network_layout(settings)
        bits = settings.fixed_point_bits
        blocks = []
        for stage in layout.stages:
            blocks += [
                residual_layer(layer, settings.channels, bits) for layer in stage.residual_layers
            ]
            blocks.append(reversible_silo(stage.silo, bits))
        self.stem = Stem(settings)
        self.backbone = ReversibleChain(blocks, memory)
        self.has_neck = with_neck and bool(layout.neck)
        self.neck = nn.ModuleList(map(InvertedBottleneck, layout.neck) if with_neck else ())
        self.pad_to_stride = False
        """True: images of other sizes are padded. False: they are refused."""

    @property
    def memory(self) -> ActivationMemory:
        """The name of what is kept for the backward pass: store, recompute or reversible."""
        return self.backbone.memory

    @memory.setter
    def memory(self, memory: ActivationMemory) -> None:
        """Choose what the next step keeps."""
        self.backbone.memory = memory

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Save memory for activations, or store them: timm's name for the choice of ``memory``."""
        if not enable:
            self.memory = "store"
        elif self.memory == "store":
            self.memory = "reversible"

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the backbone's streams, finest first; i is (b, c_i, h / (4 2^i), w / (4 2^i))."""
        if self.pad_to_stride:
            images = padded_to_multiple(images, self.settings.size_multiple)
        finest = self.stem(images)
        height, width = images.shape[2:]
        if self.training and len(images) * height * width == self.settings.size_multiple**2:
            raise UserError(
                "batch norm has a single value in each channel of the coarsest stream",
                found=f"one image of {height} x {width} in training",
                do="use more or larger images, or eval()",
            )
        return self.backbone(finest)

    def pyramid(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the streams that the head reads, of widths ``settings.head_channels``."""
        return self.after_neck(self.features(images))

    def after_neck(self, streams: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the backbone's streams as the neck, if there is one, maps them."""
        if not self.has_neck:
            return streams
        blocks = cast(Iterable[InvertedBottleneck], self.neck)
        if self.memory == "store":
            return tuple(block(stream) for block, stream in zip(blocks, streams, strict=True))
        pairs = zip(blocks, streams, strict=True)
        return tuple(recomputed(block, stream)[0] for block, stream in pairs)
