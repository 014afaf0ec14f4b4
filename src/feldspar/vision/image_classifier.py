"""RevBiFPN with the members that users of timm expect of a classifier."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from feldspar.core.errors import UserError
from feldspar.recipe.sections.vision import RevBiFPNSettings
from feldspar.reversible.chain import ActivationMemory
from feldspar.vision.feature_info import chosen_maps, feature_info
from feldspar.vision.revbifpn import RevBiFPN, initialise

POOLS = ("avg", "max", "")


class ImageClassifier(RevBiFPN):
    """A network for ``num_classes`` classes, the settings' by default; 0: for pooled features.

    Parameters and their names are those of ``RevBiFPN``. ``global_pool`` is ``avg``, which the
    paper trains with, ``max``, or empty for maps that are not pooled, without a classifier.
    """

    def __init__(
        self,
        settings: RevBiFPNSettings,
        memory: ActivationMemory = "reversible",
        seed: int = 0,
        num_classes: int | None = None,
        global_pool: str = "avg",
        pretrained_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(settings, memory, seed)
        self._seed = seed
        self.num_features = self.head_hidden_size = settings.head_width
        self.feature_info = feature_info(settings, with_neck=False)
        self.pretrained_cfg = self.default_cfg = pretrained_cfg or {}
        self.num_classes, self.global_pool = settings.classes, "avg"
        wanted = settings.classes if num_classes is None else num_classes
        if (wanted, global_pool) != (self.num_classes, self.global_pool):
            self.reset_classifier(wanted, global_pool)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (b, classes) of normalised images (b, channels, h, w).

        Raises UserError as ``RevBiFPN.forward``.
        """
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the map before pooling, (b, num_features, h / 32, w / 32)."""
        return self.gathered_features(self.pyramid(images))

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the map before pooling and the backbone's maps, or with ``intermediates_only``
        these alone.

        ``indices`` choose maps as ``chosen_maps`` reads them. ``norm`` and ``stop_early`` change
        nothing: no norm follows the maps, and each map needs the whole backbone. Raises UserError
        for another ``output_fmt``.
        """
        if output_fmt != "NCHW":
            raise UserError("output_fmt: maps are NCHW", found=output_fmt)
        streams = self.features(images)
        maps = [streams[index] for index in chosen_maps(indices, len(streams))]
        if intermediates_only:
            return maps
        return self.gathered_features(self.after_neck(streams)), maps

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits of such a map; with ``pre_logits`` what the classifier reads."""
        if self.global_pool == "avg":
            features = features.mean((2, 3))
        elif self.global_pool == "max":
            features = features.amax((2, 3))
        features = F.dropout(features, self.settings.dropout, self.training)
        return features if pre_logits else self.classifier(features)

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new classifier in place of the present one; 0 classes: pass the features on.

        Raises UserError for a number of classes or a pooling that there is not.
        """
        pool = self.global_pool if global_pool is None else global_pool
        if pool not in POOLS:
            raise UserError("global_pool is not known", found=repr(pool), allowed=map(repr, POOLS))
        if num_classes < 0 or (num_classes and not pool):
            raise UserError(
                "num_classes: a classifier needs pooled features and at least one class",
                found=f"{num_classes} classes, global_pool {pool!r}",
                do="give num_classes=0 for features",
            )
        self.num_classes, self.global_pool = num_classes, pool
        if num_classes == 0:
            self.classifier = nn.Identity()
            return
        like = self.final.convolution.weight
        classifier = nn.Linear(self.num_features, num_classes)
        initialise(classifier, self._seed)
        self.classifier = classifier.to(like.device, like.dtype)
        self.settings = self.settings.model_copy(update={"classes": num_classes})
