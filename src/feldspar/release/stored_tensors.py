"""Count the entries of the tensors in safetensors files by their headers; loads no torch."""

import math
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from feldspar.core.errors import RunError


def stored_entries(files: Iterable[Path]) -> int:
    """Return the number of entries of all tensors in ``files``.

    Raises RunError for a file whose header cannot be read.
    """
    return sum(map(_entries, files))


def _entries(path: Path) -> int:
    try:
        with safe_open(path, framework="numpy") as file:
            names = file.keys()
            return sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} is not a safetensors file: {error}") from error
