"""A few small images with objects in COCO's format, and settings of small networks for them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from feldspar.recipe.sections.vision import RevBiFPNSettings

SIDE = 100
SMALL = RevBiFPNSettings(
    channels=(16, 24),
    neck_channels=(16, 24),
    head_width=32,
    classes=2,
    image_channels=1,
    residual_layers=1,
    extra_silos=1,
    fixed_point_bits=14,
)


def annotated(
    objects: list[dict[str, Any]], images: int = 2, categories: tuple[int, ...] = (7,)
) -> dict[str, Any]:
    """Annotations of square images 1, 2, ...; objects get ids where they have none."""
    return {
        "images": [
            {"id": key, "file_name": f"{key}.png", "height": SIDE, "width": SIDE}
            for key in range(1, images + 1)
        ],
        "categories": [{"id": key, "name": f"kind {key}"} for key in categories],
        "annotations": [{"id": place, **own} for place, own in enumerate(objects, start=1)],
    }


def box(image: int, *bbox: float, category: int = 7, **more: Any) -> dict[str, Any]:
    """One object."""
    return {"image_id": image, "category_id": category, "bbox": list(bbox), **more}


def polygon(left: float, top: float, width: float, height: float) -> list[list[float]]:
    """The polygon of a rectangle."""
    right, bottom = left + width, top + height
    return [[left, top, right, top, right, bottom, left, bottom]]


def write(folder: Path, told: Any, name: str = "objects.json") -> Path:
    """Write annotations, and a gray image for each entry."""
    folder.mkdir(parents=True, exist_ok=True)
    for image in told.get("images", []) if isinstance(told, dict) else []:
        if {"height", "width", "file_name"} <= set(image):
            pixels = np.full((image["height"], image["width"]), 40, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / image["file_name"])
    path = folder / name
    path.write_text(json.dumps(told))
    return path
