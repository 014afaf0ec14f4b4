"""Name the tasks that come with the package: lm-eval's definitions with their data beside them.

``bundled/README.md`` says for each task where its items come from and by which rule.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

BUNDLED_FOLDER = Path(__file__).parent / "bundled"
ALL_BUNDLED = "bundled"
"""The tag of all bundled tasks, which lm-eval takes as the name of a task."""
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
"""Variables that keep Hugging Face's libraries off the network."""


@dataclass(frozen=True)
class BundledTask:
    """One task of the package."""

    name: str
    items: int
    chance: float
    """The accuracy of guessing."""
    about: str
    """What the task asks for."""
    source: str
    """Where the items come from."""
    licence: str


def bundled_tasks() -> list[BundledTask]:
    """Return the bundled tasks, in the order of the alphabet."""
    return [_read(path) for path in sorted(BUNDLED_FOLDER.glob("*.yaml"))]


def bundled_items(name: str) -> Path:
    """Return the file of a bundled task's items."""
    return BUNDLED_FOLDER / f"{name}.jsonl"


def set_up_process(tasks: Sequence[str]) -> None:
    """Prepare a process for lm-eval, before libraries are imported, which then read variables.

    lm-eval shows no bars of its own beside ours. If all ``tasks`` are bundled, Hugging Face's
    libraries stay off the network. Values that the user has set stay.
    """
    os.environ.setdefault("TQDM_DISABLE", "1")
    known = {ALL_BUNDLED, *(path.stem for path in BUNDLED_FOLDER.glob("*.yaml"))}
    if set(tasks) <= known:
        for name in OFFLINE:
            os.environ.setdefault(name, "1")


def _read(path: Path) -> BundledTask:
    about = YAML().load(path)["metadata"]
    return BundledTask(
        name=path.stem,
        items=len(bundled_items(path.stem).read_text(encoding="utf-8").splitlines()),
        chance=float(about["chance"]),
        about=str(about["about"]),
        source=str(about["source"]),
        licence=str(about["licence"]),
    )
