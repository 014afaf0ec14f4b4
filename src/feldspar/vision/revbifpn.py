"""RevBiFPN (2206.14098): a reversible pyramid of streams, a neck, and a head that classifies.

Stem, then stages of residual couplings and a RevSilo each, then the neck (``pyramid``); head: from
fine to coarse, a last convolution, pooling, classifier.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feldspar.core.streams import stream_seed
from feldspar.recipe.sections.vision import RevBiFPNSettings
from feldspar.reversible.chain import ActivationMemory
from feldspar.vision.bottleneck import InvertedBottleneck, NormalisedConvolution
from feldspar.vision.layout import network_layout
from feldspar.vision.pyramid import ReversiblePyramid


class RevBiFPN(ReversiblePyramid):
    """The network of ``settings``, with initial values drawn from ``seed``.

    ``memory`` names what is kept for the backward pass, as in ``reversible.chain``.
    """

    classifier: nn.Module

    def __init__(
        self,
        settings: RevBiFPNSettings,
        memory: ActivationMemory = "reversible",
        seed: int = 0,
    ) -> None:
        super().__init__(settings, memory)
        self.head = nn.ModuleList(map(InvertedBottleneck, network_layout(settings).head))
        self.final = NormalisedConvolution(settings.head_channels[-1], settings.head_width)
        self.classifier = nn.Linear(settings.head_width, settings.classes)
        initialise(self, seed)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (b, classes) of normalised images (b, image channels, h, w).

        Raises UserError for tensors that are no images, for sizes that the coarsest stream does
        not divide, and for a training batch that batch norm cannot normalise.
        """
        pooled = self.pooled_features(self.pyramid(images))
        dropped = F.dropout(pooled, self.settings.dropout, self.training)
        return self.classifier(dropped)

    def gathered_features(self, pyramid: tuple[Tensor, ...]) -> Tensor:
        """Return the map that is pooled, (b, head_width, h, w) at the coarsest resolution."""
        gathered = pyramid[0]
        for block, stream in zip(self.head, pyramid[1:], strict=True):
            gathered = stream + block(gathered)
        return self.final(gathered)

    def pooled_features(self, pyramid: tuple[Tensor, ...]) -> Tensor:
        """Return the features that the classifier reads, (b, head_width), before dropout."""
        return self.gathered_features(pyramid).mean((2, 3))


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
