"""RevBiFPN in timm's registry, so that ``timm.create_model`` and ``timm.list_models`` know it."""

from collections.abc import Callable
from typing import Any

from feldspar.core.errors import UserError, missing_extra
from feldspar.vision.feature_network import FeatureNetwork
from feldspar.vision.image_classifier import ImageClassifier
from feldspar.vision.models import MODELS, classifier_configuration, create_model

default_cfgs = {name: classifier_configuration(name) for name in MODELS}
"""Read by timm, under this name, when a function of this module is registered."""


def register_with_timm() -> None:
    """Register ``revbifpn_s0`` to ``revbifpn_s6`` with timm; a second call changes nothing.

    ``timm.create_model`` then takes the arguments of ``feldspar.vision.create_model``. With
    ``pretrained=True`` weights come from the file or run folder that ``pretrained_cfg_overlay``
    names: ``{"file": PATH}``. Raises SetupError without timm.
    """
    try:
        from timm.models import is_model, register_model
    except ImportError as error:
        raise missing_extra("timm", "timm") from error
    for name in MODELS:
        if not is_model(name):
            register_model(_entry_point(name))


def _entry_point(name: str) -> Callable[..., ImageClassifier | FeatureNetwork]:
    def build(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        cache_dir: Any = None,
        **options: Any,
    ) -> ImageClassifier | FeatureNetwork:
        if isinstance(pretrained_cfg, str):
            raise UserError(f"{name} has no weights under the tag {pretrained_cfg!r}")
        if pretrained_cfg is not None and not isinstance(pretrained_cfg, dict):
            pretrained_cfg = pretrained_cfg.to_dict()
        given = (pretrained_cfg or {}) | (pretrained_cfg_overlay or {})
        model = create_model(name, pretrained and (given.get("file") or True), **options)
        model.pretrained_cfg = model.default_cfg = model.pretrained_cfg | given
        return model

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"Build {name}, as ``feldspar.vision.create_model`` does."
    return build
