"""The maps of a RevBiFPN at strides 4, 8, 16 and 32, for the heads of detectors and the like."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from feldspar.recipe.sections.vision import RevBiFPNSettings
from feldspar.reversible.chain import ActivationMemory
from feldspar.vision.feature_info import chosen_maps, feature_info
from feldspar.vision.pyramid import ReversiblePyramid
from feldspar.vision.revbifpn import initialise


class FeatureNetwork(ReversiblePyramid):
    """A pyramid without a classifier, with the names that timm's ``features_only`` models have.

    ``out_indices`` choose maps, as ``chosen_maps`` reads them; ``with_neck`` takes them after the
    neck. The initial values are those of the whole network with the same ``seed``.
    """

    def __init__(
        self,
        settings: RevBiFPNSettings,
        memory: ActivationMemory = "reversible",
        seed: int = 0,
        out_indices: int | Sequence[int] | None = None,
        with_neck: bool = False,
        pretrained_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(settings, memory, with_neck)
        self.out_indices = chosen_maps(out_indices, settings.n_streams)
        self.feature_info = feature_info(settings, with_neck, self.out_indices)
        self.pretrained_cfg = self.default_cfg = pretrained_cfg or {}
        initialise(self, seed)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the chosen maps of normalised images (b, channels, h, w), in that order.

        Raises UserError as ``RevBiFPN.forward``.
        """
        maps = self.pyramid(images) if self.has_neck else self.features(images)
        return [maps[index] for index in self.out_indices]
