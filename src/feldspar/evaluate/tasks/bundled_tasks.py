"""Name the tasks that come with the package: lm-eval's definitions with their data beside them.

``bundled/README.md`` says for each task where its items come from and by which rule.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ruamel.yaml import YAML

from feldspar.core.bundled_items import BUNDLED_FOLDER, bundled_items, bundled_names

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
    """The question that the task puts."""
    source: str
    """Where the items come from."""
    licence: str


def bundled_tasks() -> list[BundledTask]:
    """Return the bundled tasks, in the order of the alphabet."""
    return [_read(name) for name in bundled_names()]


def set_up_process(tasks: Sequence[str]) -> None:
    """Prepare a process for lm-eval, before libraries are imported, which then read variables.

    lm-eval shows no bars of its own beside ours. If all ``tasks`` are bundled, Hugging Face's
    libraries stay off the network. Values that the user has set stay.
    """
    os.environ.setdefault("TQDM_DISABLE", "1")
    if set(tasks) <= {ALL_BUNDLED, *bundled_names()}:
        for name in OFFLINE:
            os.environ.setdefault(name, "1")


def _read(name: str) -> BundledTask:
    about = YAML().load(BUNDLED_FOLDER / f"{name}.yaml")["metadata"]
    return BundledTask(
        name=name,
        items=len(bundled_items(name).read_text(encoding="utf-8").splitlines()),
        chance=float(about["chance"]),
        about=str(about["about"]),
        source=str(about["source"]),
        licence=str(about["licence"]),
    )
