"""Write the recorded values anew: python -m tests.golden, in the root of the repository.

Do this only for a change that is meant, and say in its commit why each new value is right.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from tests.golden.measure import HERE, build_data, data, plans, tensors


def write(name: str, values: dict[str, Any]) -> None:
    """Write values as JSON, one line a group."""
    lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in values.items())
    (HERE / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


with tempfile.TemporaryDirectory() as name:
    write("plans", plans(Path(name)))
with tempfile.TemporaryDirectory() as name:
    build_data(Path(name))
    write("data", data(Path(name)))
    write("tensors", tensors(Path(name)))
