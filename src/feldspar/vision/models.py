"""RevBiFPN by name, with the arguments that users of timm know."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feldspar.core.errors import UserError, nearest
from feldspar.recipe.sections.vision import SIZES, RevBiFPNSettings
from feldspar.reversible.chain import ActivationMemory
from feldspar.vision.feature_network import FeatureNetwork
from feldspar.vision.image_classifier import ImageClassifier
from feldspar.vision.images import IMAGENET_MEAN, IMAGENET_STD
from feldspar.vision.start import load_pretrained

PathLike = str | os.PathLike[str]
MODELS = {f"revbifpn_{size.lower()}": size for size in SIZES}
"""Names of models, and their sizes in the paper."""
CROP = 0.875
"""Side of the square that is measured, as a share of the shorter one: the recipes' default."""


def create_model(
    name: str,
    pretrained: bool | PathLike = False,
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    drop_rate: float | None = None,
    drop_path_rate: float | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    with_neck: bool = False,
    global_pool: str = "avg",
    memory: ActivationMemory = "reversible",
    pad_to_stride: bool = False,
    seed: int = 0,
) -> ImageClassifier | FeatureNetwork:
    """Build ``revbifpn_s0`` to ``revbifpn_s6``: a classifier, or with ``features_only`` four maps.

    ``pretrained`` is a file that the authors published or a run folder; nothing is downloaded, so
    True is refused. ``drop_rate`` (dropout before the classifier) and ``drop_path_rate``
    (stochastic depth) are the paper's for the size by default. ``in_chans`` channels are repeated
    in turn by the stem. ``out_indices`` choose maps, finest first; ``with_neck`` takes them after
    the neck. ``memory`` is reversible, recompute or store. ``pad_to_stride`` pads images at the
    right and below to a multiple of 32 instead of refusing them. Raises UserError for anything
    that does not fit.
    """
    settings = model_settings(name, in_chans, num_classes, drop_rate, drop_path_rate)
    model: ImageClassifier | FeatureNetwork
    if features_only:
        model = FeatureNetwork(
            settings, memory, seed, out_indices, with_neck, data_configuration(name)
        )
    else:
        model = ImageClassifier(
            settings, memory, seed, num_classes, global_pool, classifier_configuration(name)
        )
    model.pad_to_stride = pad_to_stride
    if pretrained is True:
        raise UserError(
            f"pretrained=True: feldspar has no weights of {name} and downloads none",
            do="give pretrained the path of the authors' file or of a run folder",
        )
    if pretrained:
        load_pretrained(model, Path(pretrained))
    return model


def model_settings(
    name: str,
    in_chans: int = 3,
    num_classes: int = 1000,
    drop_rate: float | None = None,
    drop_path_rate: float | None = None,
) -> RevBiFPNSettings:
    """Return the settings of a model. Raises UserError for a name or a value that there is not."""
    if name not in MODELS:
        close = nearest(name, MODELS)
        raise UserError(
            f"no model has the name {name!r}",
            allowed=MODELS,
            do=f"use {close}" if close else None,
        )
    size = MODELS[name]
    most = SIZES[size][1]["channels"][0] // 16
    if not 1 <= in_chans <= most:
        raise UserError(
            f"in_chans: the stem of {name} holds images of 1 to {most} channels", found=in_chans
        )
    given = {"dropout": drop_rate, "stochastic_depth": drop_path_rate}
    for key, value in (("drop_rate", drop_rate), ("drop_path_rate", drop_path_rate)):
        if value is not None and not 0 <= value < 1:
            raise UserError(f"{key} must be at least 0 and below 1", found=value)
    chosen = {key: value for key, value in given.items() if value is not None}
    return RevBiFPNSettings.model_validate(
        {"size": size, "image_channels": in_chans, "classes": max(1, num_classes), **chosen}
    )


def data_configuration(name: str) -> dict[str, Any]:
    """Return what timm's ``resolve_data_config`` reads: size, crop and pixel statistics."""
    resolution = SIZES[MODELS[name]][0]
    return {
        "architecture": name,
        "input_size": (3, resolution, resolution),
        "min_input_size": (3, 32, 32),
        "fixed_input_size": False,
        "interpolation": "bilinear",
        "crop_pct": CROP,
        "crop_mode": "center",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "first_conv": None,
        "paper_ids": "arXiv:2206.14098",
    }


def classifier_configuration(name: str) -> dict[str, Any]:
    """Return timm's ``default_cfg`` of a classifier; the stem has no weights, so no first
    convolution."""
    side = SIZES[MODELS[name]][0] // 32
    return data_configuration(name) | {
        "num_classes": 1000,
        "pool_size": (side, side),
        "classifier": "classifier",
    }
