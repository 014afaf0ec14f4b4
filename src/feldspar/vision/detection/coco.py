"""Images with objects in COCO's format, checked: boxes, masks, crowds and categories."""

import json
import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from feldspar.core.errors import UserError, missing_extra
from feldspar.core.files import digest_of, sha256_of_file
from feldspar.core.progress import say
from feldspar.vision.folder import read_image

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""


@dataclass(frozen=True)
class CocoObject:
    """One annotation."""

    box: Box
    """The part of its box that lies in the image."""
    annotated: tuple[float, ...]
    """Its box as annotated: left, top, width and height. Measures use this one."""
    area: float | None
    """Its area as annotated, if it is, by which measures sort small from large."""
    label: int
    """Number of its category, from 1 on in the order of their ids."""
    crowd: bool
    """True if it covers a group, which is neither learned nor counted as missed."""
    segmentation: Any
    """Polygons or run lengths as COCO writes them, or None."""


@dataclass(frozen=True)
class CocoImage:
    """One image and its objects; an image without objects is a negative one."""

    id: int
    file_name: str
    height: int
    width: int
    objects: tuple[CocoObject, ...]

    @property
    def learned(self) -> list[CocoObject]:
        """The objects that are no crowds."""
        return [item for item in self.objects if not item.crowd]


@dataclass(frozen=True)
class CocoSplit:
    """The images of an annotation file."""

    folder: Path
    annotations: Path
    images: tuple[CocoImage, ...]
    classes: tuple[str, ...]
    """Names of the categories, in the order of their ids; label n is classes[n - 1]."""
    category_ids: tuple[int, ...]
    channels: int
    """Channels that images are read with: 1 (gray) or 3 (colour)."""

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def digest(self) -> str:
        """A value that changes with the annotations and the files' names and sizes."""
        files = (self.folder / image.file_name for image in self.images)
        sizes = [f"{file.name}:{file.stat().st_size if file.exists() else -1}" for file in files]
        return digest_of(sha256_of_file(self.annotations), *sizes)

    def read(self, index: int) -> Tensor:
        """Read the pixels of an image, bytes (channels, height, width).

        Raises UserError for a file that cannot be read, or of another size than is annotated.
        """
        image = self.images[index]
        path = self.folder / image.file_name
        pixels = read_image(path, self.channels)
        if pixels.shape[1:] != (image.height, image.width):
            raise UserError(
                f"{path} has another size than its annotations say",
                where=str(self.annotations),
                found=f"{pixels.shape[1]} x {pixels.shape[2]}",
                allowed=f"{image.height} x {image.width} (height x width)",
            )
        return pixels

    def mask(self, image: CocoImage, item: CocoObject) -> np.ndarray:
        """Return the pixels that an object covers, bytes (height, width) of 0 and 1.

        Raises UserError for an object without a mask.
        """
        if not item.segmentation:
            raise without_mask(image, self)
        coder = mask_coder()
        runs = run_lengths(item.segmentation, image.height, image.width)
        return coder.decode(runs)


def without_mask(image: CocoImage, split: CocoSplit) -> UserError:
    """Return the error of an object without a mask where masks are needed."""
    return UserError(
        f"an object of {image.file_name} has no segmentation, which masks need",
        where=str(split.annotations),
        do="use a head without masks, or add the segmentation",
    )


def mask_coder() -> Any:
    """Return pycocotools' module of masks. Raises SetupError where it is not installed."""
    try:
        from pycocotools import mask
    except ImportError:
        raise missing_extra("pycocotools", "detection") from None
    return mask


def run_lengths(segmentation: Any, height: int, width: int) -> Any:
    """Return polygons, or run lengths of either form, as pycocotools' compressed run lengths."""
    coder = mask_coder()
    if isinstance(segmentation, list):
        return coder.merge(coder.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return coder.frPyObjects(segmentation, height, width)
    return segmentation


def open_coco(folder: Path, annotations: Path, channels: int, split: str) -> CocoSplit:
    """Read an annotation file and check it.

    Objects whose box is empty, or outside of the image, are left out with a warning that counts
    them. Raises UserError for a file that is no annotation file, an unknown category or image, two
    equal ids, a box that is not four finite numbers, and a folder that is not there.
    """
    where = str(annotations)
    if not folder.is_dir():
        raise UserError(f"images.{split}: {folder} is no folder", do="give the folder of images")
    told = _read_json(annotations, split)
    categories = sorted(_numbered(told, "categories", where).items())
    labels = {key: label for label, (key, _) in enumerate(categories, start=1)}
    if not labels:
        raise UserError(f"images.{split}_annotations: {annotations} has no category")
    known = _numbered(told, "images", where)
    if not known:
        raise UserError(f"images.{split}_annotations: {annotations} has no image")
    objects: dict[int, list[CocoObject]] = {key: [] for key in known}
    dropped: Counter[str] = Counter()
    for key, entry in _numbered(told, "annotations", where).items():
        image = known.get(entry.get("image_id", -1))
        if image is None:
            raise _refused(key, "image_id", entry.get("image_id"), "the id of an image", where)
        label = labels.get(entry.get("category_id", -1))
        if label is None:
            names = ", ".join(map(str, labels))
            raise _refused(key, "category_id", entry.get("category_id"), names, where)
        box = _box(key, entry, where)
        inside = _clipped(box, image["height"], image["width"])
        if box[2] <= 0 or box[3] <= 0:
            dropped["have a width or height of 0 or less"] += 1
        elif inside is None:
            dropped["lie outside of their image"] += 1
        else:
            objects[image["id"]].append(
                CocoObject(
                    box=inside,
                    annotated=box,
                    area=entry.get("area"),
                    label=label,
                    crowd=bool(entry.get("iscrowd", 0)),
                    segmentation=entry.get("segmentation") or None,
                )
            )
    for what, count in dropped.items():
        say(f"warning: {count:,} boxes of {annotations} {what}; they are left out")
    images = tuple(
        CocoImage(key, own["file_name"], own["height"], own["width"], tuple(objects[key]))
        for key, own in sorted(known.items())
    )
    names = tuple(str(own.get("name", key)) for key, own in categories)
    return CocoSplit(folder, annotations, images, names, tuple(labels), channels)


def _read_json(path: Path, split: str) -> dict[str, Any]:
    key = f"images.{split}_annotations"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{key}: there is no file {path}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{key}: {path} cannot be read as JSON", found=str(error)) from error
    sections = ("images", "annotations", "categories")
    lacking = [name for name in sections if not isinstance(told, dict) or name not in told]
    if lacking:
        raise UserError(
            f"{key}: {path} is no annotation file of COCO: it lacks the list {lacking[0]!r}",
            allowed=sections,
        )
    return told


def _numbered(told: dict[str, Any], section: str, where: str) -> dict[int, dict[str, Any]]:
    """Return the entries of a section by their id."""
    found: dict[int, dict[str, Any]] = {}
    for place, entry in enumerate(told[section]):
        key = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(key, int):
            raise UserError(f"{section}: entry {place} has no number as its id", where=where)
        if key in found:
            raise UserError(f"{section}: two entries have the id {key}", where=where)
        if section == "images":
            sizes = (entry.get("height"), entry.get("width"))
            if not all(isinstance(size, int) and size > 0 for size in sizes):
                raise UserError(f"images: the image {key} has no height and width", where=where)
            if not isinstance(entry.get("file_name"), str):
                raise UserError(f"images: the image {key} has no file_name", where=where)
        found[key] = entry
    return found


def _refused(key: int, name: str, found: Any, allowed: str, where: str) -> UserError:
    return UserError(
        f"annotations: the object {key} has an unknown {name}",
        where=where,
        found=found,
        allowed=allowed,
    )


def _box(key: int, entry: dict[str, Any], where: str) -> tuple[float, ...]:
    told = entry.get("bbox")
    whole = isinstance(told, list) and len(told) == 4
    if not whole or not all(isinstance(n, int | float) and math.isfinite(n) for n in told or ()):
        raise UserError(
            f"annotations: the bbox of the object {key} is not four finite numbers",
            where=where,
            found=told,
            allowed="left, top, width and height in pixels",
        )
    return tuple(map(float, told or ()))


def _clipped(box: tuple[float, ...], height: int, width: int) -> Box | None:
    left, top = max(box[0], 0.0), max(box[1], 0.0)
    right, bottom = min(box[0] + box[2], float(width)), min(box[1] + box[3], float(height))
    return (left, top, right, bottom) if right > left and bottom > top else None


def boxes_of(objects: list[CocoObject]) -> Tensor:
    """Return the boxes of objects, (n, 4)."""
    return torch.tensor([item.box for item in objects], dtype=torch.float32).reshape(-1, 4)


def labels_of(objects: list[CocoObject]) -> Tensor:
    """Return the labels of objects, (n,)."""
    return torch.tensor([item.label for item in objects], dtype=torch.int64)
