"""Read the items of a bundled task, for lm-eval; the files lie beside this one."""

import json
from pathlib import Path
from typing import Any


def read_items(file: str, **_: Any) -> dict[str, Any]:
    """Return the items of ``file`` as lm-eval's split ``test``, without a cache on disk."""
    from datasets import Dataset

    lines = (Path(__file__).parent / file).read_text(encoding="utf-8").splitlines()
    return {"test": Dataset.from_list([json.loads(line) for line in lines])}
