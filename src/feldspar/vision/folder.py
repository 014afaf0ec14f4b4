"""Images in folders of classes, SPLIT/CLASS/NAME.jpg, decoded by Pillow (extra ``vision``)."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from feldspar.core.errors import UserError, missing_extra
from feldspar.core.files import digest_of
from feldspar.core.progress import say
from feldspar.vision.images import LabelledImages

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "La", "CMYK", "YCbCr", "HSV", "LAB")
"""Pillow's names of the kinds of pixels that bytes can hold."""


def open_folder(path: Path, channels: int, split: str) -> LabelledImages:
    """Open the split of class folders in ``path``; classes are sorted by name.

    Raises UserError for a folder without classes and a class without images.
    """
    if not path.is_dir():
        raise UserError(
            f"images.{split}: {path} is no folder",
            do="give the folder that holds one folder a class",
        )
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and _is_seen(entry))
    if not folders:
        raise UserError(f"images.{split}: {path} holds no folder of a class")
    files: list[Path] = []
    labels: list[int] = []
    ignored = 0
    for label, folder in enumerate(folders):
        entries = sorted(entry for entry in folder.iterdir() if _is_seen(entry))
        images = [entry for entry in entries if entry.suffix.lower() in SUFFIXES]
        ignored += len(entries) - len(images)
        if not images:
            raise UserError(
                f"images.{split}: the class {folder.name!r} holds no image",
                where=str(folder),
                allowed=SUFFIXES,
                do="add its images, or remove the folder",
            )
        files += images
        labels += [label] * len(images)
    if ignored:
        say(f"warning: {ignored} entries of {path} have no name of an image and are left out")
    names = [f"{file.relative_to(path).as_posix()}:{file.stat().st_size}" for file in files]
    return LabelledImages(
        classes=tuple(folder.name for folder in folders),
        labels=np.array(labels, dtype=np.int64),
        read=partial(_read_numbered, files, channels),
        digest=digest_of(*names),
    )


def _is_seen(entry: Path) -> bool:
    return not entry.name.startswith(".")


def _read_numbered(files: list[Path], channels: int, index: int) -> Tensor:
    return read_image(files[index], channels)


def read_image(path: Path, channels: int) -> Tensor:
    """Read a file as bytes (channels, height, width), in gray or colour as ``channels`` says.

    Gray becomes colour by repetition, and colour becomes gray by its luminance. CMYK is converted,
    and transparent parts show white. Raises UserError for a file that cannot be decoded, and for
    pixels of more than 8 bits.
    """
    try:
        from PIL import Image
    except ImportError:
        raise missing_extra("Pillow", "vision") from None
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path} cannot be read as an image",
            found=str(error) or type(error).__name__,
            do="restore the file, or remove it",
        ) from error
    if image.mode not in EIGHT_BITS:
        raise UserError(
            f"{path} has pixels of another kind than 8 bits a channel",
            found=f"mode {image.mode}",
            do="convert it to 8 bits",
        )
    pixels = np.array(_on_white(image).convert("L" if channels == 1 else "RGB"))
    planes = pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(planes))


def _on_white(image: Any) -> Any:
    """Lay an image with transparent parts on white."""
    if not (image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info):
        return image
    from PIL import Image

    opaque = image.convert("RGBA")
    paper = Image.new("RGBA", opaque.size, (255, 255, 255, 255))
    return Image.alpha_composite(paper, opaque)
