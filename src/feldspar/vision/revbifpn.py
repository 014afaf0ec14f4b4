"""RevBiFPN (2206.14098): a reversible pyramid of streams, a neck, and a head that classifies.

Stem, then stages of residual couplings and a RevSilo each; neck: one block a stream, computed
again in the backward pass; head: from fine to coarse, a last convolution, pooling, classifier.
Training keeps the backbone's outputs, whatever its depth.
"""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feldspar.core.errors import UserError
from feldspar.core.streams import stream_seed
from feldspar.recipe.sections.vision import RevBiFPNSettings
from feldspar.reversible.chain import ActivationMemory, ReversibleChain
from feldspar.reversible.recompute import recomputed
from feldspar.vision.bottleneck import InvertedBottleneck, NormalisedConvolution
from feldspar.vision.layout import network_layout
from feldspar.vision.silo import residual_layer, reversible_silo
from feldspar.vision.stem import Stem


class RevBiFPN(nn.Module):
    """The network of ``settings``, with initial values drawn from ``seed``.

    ``memory`` names what is kept for the backward pass, as in ``reversible.chain``.
    """

    def __init__(
        self,
        settings: RevBiFPNSettings,
        memory: ActivationMemory = "reversible",
        seed: int = 0,
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
        self.neck = nn.ModuleList(map(InvertedBottleneck, layout.neck))
        self.head = nn.ModuleList(map(InvertedBottleneck, layout.head))
        self.final = NormalisedConvolution(settings.neck_channels[-1], settings.head_width)
        self.classifier = nn.Linear(settings.head_width, settings.classes)
        initialise(self, seed)

    @property
    def memory(self) -> ActivationMemory:
        """The name of what is kept for the backward pass: store, recompute or reversible."""
        return self.backbone.memory

    @memory.setter
    def memory(self, memory: ActivationMemory) -> None:
        """Choose what the next step keeps."""
        self.backbone.memory = memory

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (b, classes) of normalised images (b, image channels, h, w).

        Raises UserError for tensors that are no images, for sizes that the coarsest stream does
        not divide, and for a training batch that batch norm cannot normalise.
        """
        pooled = self.pooled_features(self.pyramid(images))
        dropped = F.dropout(pooled, self.settings.dropout, self.training)
        return self.classifier(dropped)

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the backbone's streams, finest first; i is (b, c_i, h / (4 2^i), w / (4 2^i))."""
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
        """Return the streams after the neck, of widths ``neck_channels``."""
        streams = self.features(images)
        blocks = cast(Iterable[InvertedBottleneck], self.neck)
        if self.memory == "store":
            return tuple(block(stream) for block, stream in zip(blocks, streams, strict=True))
        pairs = zip(blocks, streams, strict=True)
        return tuple(recomputed(block, stream)[0] for block, stream in pairs)

    def pooled_features(self, pyramid: tuple[Tensor, ...]) -> Tensor:
        """Return the features that the classifier reads, (b, head_width), before dropout."""
        gathered = pyramid[0]
        for block, stream in zip(self.head, pyramid[1:], strict=True):
            gathered = stream + block(gathered)
        return self.final(gathered).mean((2, 3))


def initialise(model: nn.Module, seed: int) -> None:
    """Draw the initial values.

    Convolutions are normal by their outputs, for a ReLU (1502.01852), with biases of 0. The
    classifier has the uniform values of ``nn.Linear``.
    """
    generator = torch.Generator().manual_seed(stream_seed(seed, "vision.init"))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(
                module.weight, mode="fan_out", nonlinearity="relu", generator=generator
            )
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
            nn.init.uniform_(module.bias, -bound, bound, generator=generator)
