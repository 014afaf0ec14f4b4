"""Semantic segmentation: RevBiFPN's streams joined at the finest resolution, a class each pixel."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feldspar.core.streams import stream_seed
from feldspar.recipe.sections.detection import SegmentationTask
from feldspar.recipe.sections.vision import RevBiFPNSettings
from feldspar.reversible.chain import ActivationMemory
from feldspar.vision.bottleneck import NormalisedConvolution
from feldspar.vision.detection.examples import IGNORED
from feldspar.vision.detection.pyramid import at_finest
from feldspar.vision.feature_network import FeatureNetwork


class Segmenter(nn.Module):
    """Streams upsampled and concatenated, two convolutions of 1 x 1, and a class for each pixel.

    Class 0 is the background, class n the category with label n.
    """

    def __init__(
        self,
        settings: RevBiFPNSettings,
        task: SegmentationTask,
        memory: ActivationMemory = "reversible",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.settings = settings
        with torch.random.fork_rng(devices=[]):
            self.body = FeatureNetwork(settings, memory, seed)
            torch.manual_seed(stream_seed(seed, "vision.heads"))
            self.join = NormalisedConvolution(sum(settings.channels), task.width)
            self.classify = nn.Conv2d(task.width, settings.classes + 1, 1)

    @property
    def memory(self) -> ActivationMemory:
        """The name of what is kept for the backward pass: store, recompute or reversible."""
        return self.body.memory

    def logits(self, images: Tensor) -> Tensor:
        """Map images (b, c, h, w) to logits (b, classes + 1, h, w)."""
        joined = self.join(torch.cat(at_finest(list(self.body.features(images))), dim=1))
        return F.interpolate(self.classify(joined), images.shape[2:], mode="bilinear")

    def forward(self, images: Tensor, classes: Tensor) -> Tensor:
        """Return the summed loss of images, that of an image being the mean over its pixels.

        ``classes`` (b, h, w) has the class of each pixel, or ``IGNORED``.
        """
        losses = F.cross_entropy(
            self.logits(images).float(), classes, ignore_index=IGNORED, reduction="none"
        )
        counted = (classes != IGNORED).sum((1, 2)).clamp(min=1)
        return (losses.sum((1, 2)) / counted).sum()
