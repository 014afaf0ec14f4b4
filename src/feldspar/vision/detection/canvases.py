"""Canvases: small real images placed on noise, with boxes, masks and COCO's annotations.

Every pixel follows from the settings, canvas by canvas.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from feldspar.core.artifact import OtherArtifactError, Wanted, find_artifact, finish_artifact
from feldspar.core.errors import missing_extra
from feldspar.core.files import digest_of, new_folder
from feldspar.core.progress import progress
from feldspar.core.streams import numpy_stream
from feldspar.recipe.sections.detection import CanvasImages, IdxObjects
from feldspar.vision.detection.average_precision import encoded
from feldspar.vision.detection.digits import read_digits
from feldspar.vision.detection.fitting import resized
from feldspar.vision.idx import open_idx

KIND = "canvases"
ATTEMPTS = 20
"""Number of places that are tried for an object before it is left out."""
MOST_OVERLAP = 0.1
"""Largest share of the smaller of two squares that the other may cover."""
OBJECT_LEVEL = 64
"""Smallest value of a pixel that belongs to an object."""
CELLS, DARK, NOISE = 5, (20, 110), 12
"""Cells of a background along a side, range of their values, and largest noise of a pixel."""


@dataclass(frozen=True)
class Placed:
    """An object on a canvas."""

    label: int
    mask: np.ndarray
    """The pixels that show it, bytes (side, side) of 0 and 1."""


def build_canvases(settings: CanvasImages) -> None:
    """Write the canvases of ``settings`` into their folder, unless they are there.

    Raises UserError for a folder that holds anything else, and as the source of the objects does.
    """
    told = json.loads(settings.model_dump_json(exclude={"path", "mean", "std"}))
    configuration = digest_of(json.dumps(told, sort_keys=True))
    wanted = Wanted(KIND, configuration, told, key="images.path")
    try:
        if find_artifact(settings.path, wanted) is not None:
            return
    except OtherArtifactError as error:
        error.do = "choose another images.path, or delete the folder to build it again"
        raise
    counts = {"train": settings.train_images, "validation": settings.validation_images}
    with (
        new_folder(settings.path, overwrite=True) as folder,
        progress("canvases", sum(counts.values()), "images") as advance,
    ):
        for split, count in counts.items():
            pixels, labels, names = read_objects(settings, split)
            (folder / split).mkdir()
            entries: list[tuple[str, list[Placed]]] = []
            for index in range(count):
                canvas, placed = draw_canvas(settings, split, index, pixels, labels)
                name = f"{index:05d}.png"
                _save(folder / split / name, canvas)
                entries.append((name, placed))
                advance(1)
            annotated = annotations(entries, settings.pixels, names)
            (folder / f"{split}.json").write_text(json.dumps(annotated), encoding="utf-8")
        finish_artifact(folder, wanted, counts=counts)


def read_objects(
    settings: CanvasImages, split: str
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return the objects of a split as bytes (n, h, w), their labels from 0 on, and the names."""
    source = settings.objects
    if isinstance(source, IdxObjects):
        opened = open_idx(getattr(source, split), 1, split)
        pixels = torch.cat([opened.read(index) for index in range(len(opened))]).numpy()
        return pixels, opened.labels, opened.classes
    return *read_digits(split), tuple(map(str, range(10)))


def draw_canvas(
    settings: CanvasImages, split: str, index: int, pixels: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, list[Placed]]:
    """Return the canvas of a number, bytes (side, side), and what lies on it."""
    chance = numpy_stream(settings.seed, "canvases", split, index)
    canvas = _background(settings.pixels, chance)
    squares: list[tuple[int, int, int]] = []
    placed: list[Placed] = []
    for _ in range(int(chance.integers(1, settings.most_objects, endpoint=True))):
        number = int(chance.integers(len(labels)))
        side = int(chance.integers(*settings.object_pixels, endpoint=True))
        square = _free_square(settings.pixels, side, squares, chance)
        if square is None:
            continue
        squares.append(square)
        item = resized(torch.from_numpy(pixels[number][None]), side, side)[0].numpy()
        top, left, _ = square
        shown = np.zeros_like(canvas)
        shown[top : top + side, left : left + side] = item >= OBJECT_LEVEL
        part = canvas[top : top + side, left : left + side]
        part[...] = np.where(item >= OBJECT_LEVEL, item, part)
        hidden = [Placed(other.label, other.mask & (1 - shown)) for other in placed]
        placed = [*hidden, Placed(int(labels[number]), shown)]
    return canvas, [item for item in placed if item.mask.any()]


def annotations(
    entries: list[tuple[str, list[Placed]]], side: int, names: tuple[str, ...]
) -> dict[str, Any]:
    """Return COCO's annotations of canvases, whose masks are run lengths."""
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for name, placed in entries:
        image = len(images) + 1
        images.append({"id": image, "file_name": name, "height": side, "width": side})
        for item in placed:
            rows, columns = np.nonzero(item.mask)
            top, left = int(rows.min()), int(columns.min())
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": image,
                    "category_id": item.label + 1,
                    "bbox": [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top],
                    "area": int(item.mask.sum()),
                    "iscrowd": 0,
                    "segmentation": encoded(item.mask),
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    return {"images": images, "annotations": objects, "categories": categories}


def _background(side: int, chance: np.random.Generator) -> np.ndarray:
    cells = torch.from_numpy(chance.integers(*DARK, size=(1, 1, CELLS, CELLS)).astype(np.float64))
    smooth = F.interpolate(cells, (side, side), mode="bilinear", align_corners=True)[0, 0].numpy()
    noise = chance.integers(-NOISE, NOISE, size=(side, side), endpoint=True)
    return np.rint(smooth + noise).clip(0, 255).astype(np.uint8)


def _free_square(
    canvas: int, side: int, taken: list[tuple[int, int, int]], chance: np.random.Generator
) -> tuple[int, int, int] | None:
    """Draw the top, left and side of a square that covers little of those taken, or None."""
    for _ in range(ATTEMPTS):
        top, left = chance.integers(0, canvas - side, size=2, endpoint=True).tolist()
        if all(_overlap((top, left, side), other) <= MOST_OVERLAP for other in taken):
            return top, left, side
    return None


def _overlap(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """Return the share of the smaller square that both cover."""
    sides = [
        min(one[axis] + one[2], other[axis] + other[2]) - max(one[axis], other[axis])
        for axis in (0, 1)
    ]
    return max(sides[0], 0) * max(sides[1], 0) / min(one[2], other[2]) ** 2


def _save(path: Path, canvas: np.ndarray) -> None:
    try:
        from PIL import Image
    except ImportError:
        raise missing_extra("Pillow", "detection") from None
    Image.fromarray(canvas).save(path)
