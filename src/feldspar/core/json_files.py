"""Read and write JSON files. NaN and infinities, which JSON lacks, are written as null."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from feldspar.core.errors import UserError
from feldspar.core.files import write_atomically


def json_values(value: Any) -> Any:
    """Return plain values as JSON returns them: text keys, lists, None for NaN and infinities.

    Records of a run's steps keep such numbers as text instead: see ``core.records``.
    """
    if isinstance(value, Mapping):
        return {str(key): json_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_text(value: Any, indent: int | None = 2, ascii_only: bool = False) -> str:
    """Return the text of a JSON file; ``ascii_only`` escapes all other characters."""
    values = json_values(value)
    return json.dumps(values, indent=indent, ensure_ascii=ascii_only, allow_nan=False) + "\n"


def write_json(path: Path, value: Any, indent: int | None = 2, ascii_only: bool = False) -> None:
    """Write a JSON file whole or not at all. Raises SetupError when the disk is full."""
    write_atomically(path, json_text(value, indent, ascii_only))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON mapping. Raises UserError that names the file when it holds no mapping."""
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON mapping")
    return value
