"""Images in MNIST's files: a header of big-endian numbers, then one byte a pixel or label."""

import gzip
import zlib
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from feldspar.core.errors import UserError
from feldspar.core.files import digest_of, sha256_of_file
from feldspar.vision.images import LabelledImages

BYTES = 0x08
"""Code of bytes, the only type of entries that is read."""


def open_idx(prefix: Path, channels: int, split: str) -> LabelledImages:
    """Read the split of PREFIX-images-idx3-ubyte and PREFIX-labels-idx1-ubyte (.gz) into memory.

    Raises UserError for files that are absent, damaged, empty, or do not belong together.
    """
    paths = [_find(prefix, f"{what}-ubyte", split) for what in ("images-idx3", "labels-idx1")]
    pixels, labels = read_idx(paths[0], 3), read_idx(paths[1], 1)
    if len(pixels) != len(labels):
        raise UserError(
            f"images.{split}: {len(pixels):,} images and {len(labels):,} labels do not belong "
            "together",
            where=str(paths[0]),
        )
    if not pixels.size:
        raise UserError(f"images.{split}: {paths[0]} holds no image", found=pixels.shape)
    n_classes = int(labels.max()) + 1
    absent = sorted(set(range(n_classes)) - set(labels.tolist()))
    if absent:
        raise UserError(
            f"images.{split}: the class {absent[0]} has no image, though larger labels occur",
            where=str(paths[1]),
        )
    return LabelledImages(
        classes=tuple(map(str, range(n_classes))),
        labels=labels.astype(np.int64),
        read=partial(_plane, torch.from_numpy(pixels), channels),
        digest=digest_of(*map(sha256_of_file, paths)),
    )


def read_idx(path: Path, n_dimensions: int) -> np.ndarray:
    """Read the array in a file, gzipped or not. Raises UserError for any other content."""
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read", found=str(error)) from error
    header = 4 + 4 * n_dimensions
    if len(data) < header or data[:4] != bytes((0, 0, BYTES, n_dimensions)):
        raise UserError(
            f"{path} is no idx file of bytes in {n_dimensions} dimensions",
            found=f"it begins with {data[:4].hex() or 'nothing'}",
            allowed=bytes((0, 0, BYTES, n_dimensions)).hex(),
        )
    shape = tuple(np.frombuffer(data, ">u4", n_dimensions, offset=4).tolist())
    if len(data) - header != prod(shape):
        raise UserError(
            f"{path} does not hold as much as its header says",
            found=f"{len(data) - header:,} bytes",
            allowed=f"{prod(shape):,}",
        )
    return np.frombuffer(bytearray(data), np.uint8, offset=header).reshape(shape)


def _find(prefix: Path, what: str, split: str) -> Path:
    names = [f"{prefix.name}-{what}", f"{prefix.name}-{what}.gz"]
    for name in names:
        if (path := prefix.with_name(name)).is_file():
            return path
    raise UserError(
        f"images.{split}: there is no file {names[0]} or {names[1]}",
        where=str(prefix.parent),
        do="put the four files of MNIST or Fashion-MNIST there; on Debian they are in the package "
        "dataset-fashion-mnist",
    )


def _plane(pixels: Tensor, channels: int, index: int) -> Tensor:
    return pixels[index].expand(channels, -1, -1)
