"""The handwritten digits of scikit-learn's package: 1,797 gray images of 8 x 8 pixels."""

import gzip
import tarfile
from hashlib import sha256
from importlib import metadata
from pathlib import Path

import numpy as np

from feldspar.core.errors import RunError
from feldspar.core.files import cache_folder
from feldspar.corpus.readers.archives import fetch_archives
from feldspar.recipe.sections.readers import Archive

PACKAGE = "scikit-learn"
MEMBER = "sklearn/datasets/data/digits.csv.gz"
MEMBER_SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
SOURCES = Archive(
    requirement=f"{PACKAGE}==1.7.2",
    sha256="20e9e49ecd130598f1ca38a1d85090e1a600147b9c02fa6f15d69cb53d968fda",
)
"""The source archive to take the file from where the package is not installed; no code is run."""
SIDE, BRIGHTEST = 8, 16
TRAINING = 1437
"""Digits of the training split, four fifths; the others are held out."""


def read_digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return bytes (n, 8, 8) and labels (n,) of the split ``train`` or ``validation``.

    They come from the installed package, or from a pinned archive of the package index. Raises
    UserError and SetupError as ``fetch_archives``, RunError for a file that is not the pinned one.
    """
    rows = np.loadtxt(gzip.decompress(_file()).decode("ascii").splitlines(), delimiter=",")
    pixels = np.rint(rows[:, :-1] * 255 / BRIGHTEST).astype(np.uint8).reshape(-1, SIDE, SIDE)
    part = slice(None, TRAINING) if split == "train" else slice(TRAINING, None)
    return pixels[part], rows[part, -1].astype(np.int64)


def _file() -> bytes:
    installed = _installed()
    if installed is not None:
        return installed
    path = fetch_archives([SOURCES], offline=False)[SOURCES.sha256]
    with tarfile.open(path) as archive:
        name = next(name for name in archive.getnames() if name.endswith(f"/{MEMBER}"))
        source = archive.extractfile(name)
        assert source is not None, "the member is a file"
        data = source.read()
    if (found := sha256(data).hexdigest()) != MEMBER_SHA256:
        raise RunError(
            f"{MEMBER} in {path.name} is not the pinned file",
            where=str(cache_folder()),
            found=found,
            allowed=MEMBER_SHA256,
        )
    return data


def _installed() -> bytes | None:
    """Return the file of the installed package; None without it, or where it is another one."""
    try:
        path = Path(str(metadata.distribution(PACKAGE).locate_file(MEMBER)))
    except metadata.PackageNotFoundError:
        return None
    data = path.read_bytes() if path.is_file() else b""
    return data if sha256(data).hexdigest() == MEMBER_SHA256 else None
