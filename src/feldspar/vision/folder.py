"""Images in folders of classes, SPLIT/CLASS/NAME.jpg, decoded by Pillow (extra ``vision``)."""

from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from feldspar.core.errors import UserError
from feldspar.core.files import digest_of
from feldspar.core.progress import say
from feldspar.vision.decode import decode_image
from feldspar.vision.images import LabelledImages

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


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
    """Read a file as bytes (channels, height, width). Raises UserError as ``decode_image`` does."""
    return decode_image(path, str(path), channels)
