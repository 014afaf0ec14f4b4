"""Small pictures of three kinds of stripes, as folders of classes and as MNIST's files."""

import gzip
from pathlib import Path

import numpy as np
from PIL import Image

KINDS = ("across", "down", "slant")
SIDE = 20


def stripes(label: int, chance: np.random.Generator) -> np.ndarray:
    """Bytes (SIDE, SIDE): stripes of one kind in a random phase, with noise."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    place = (rows, columns, rows + columns)[label] + chance.integers(0, 6)
    values = 90 + 90 * (place % 6 < 3) + chance.integers(0, 60, size=(SIDE, SIDE))
    return values.astype(np.uint8)


def some_pictures(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (count, SIDE, SIDE) and labels, each kind as often as the others."""
    chance = np.random.default_rng(seed)
    labels = np.arange(count) % len(KINDS)
    return np.stack([stripes(int(label), chance) for label in labels]), labels.astype(np.uint8)


def write_idx(path: Path, array: np.ndarray) -> None:
    """One file; gzipped where its name ends so."""
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    data = header + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_split(prefix: Path, pixels: np.ndarray, labels: np.ndarray, ending: str = "") -> None:
    """Both files of a split."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    for what, array in (("images-idx3", pixels), ("labels-idx1", labels)):
        write_idx(prefix.with_name(f"{prefix.name}-{what}-ubyte{ending}"), array)


def write_folder(root: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    """PNG files in a folder a class."""
    for number, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
        folder = root / KINDS[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{number:03d}.png")
