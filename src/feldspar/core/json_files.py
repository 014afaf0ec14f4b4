"""JSON files that hold a mapping, read with every way of being wrong named."""

import json
from pathlib import Path
from typing import Any

from feldspar.core.errors import UserError


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON mapping. Raises UserError that names the file when it is anything else."""
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON mapping")
    return value
