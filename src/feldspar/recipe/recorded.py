"""Read the recipe of a run from its checkpoints, which keep it under a checksum.

``recipe.yaml`` beside them is for people to read. Loads no torch.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feldspar.core.artifact import open_artifact
from feldspar.core.errors import FeldsparError
from feldspar.core.manifest import kind_of

RECIPE_NAME = "recipe.yaml"
METRICS_NAME = "metrics.jsonl"
EVENTS_NAME, BAD_BATCHES_NAME = "events.jsonl", "bad_batches.jsonl"
TABLES_NAME, ADAPTATION_NAME = "parametrization.json", "adaptation.json"
LOCK_NAME = ".lock"
"""The file by which a process that is about to train claims a folder."""
SUMMARY_NAME, DRAWING_NAME = "summary.json", "summary.svg"
CHECKPOINTS_NAME = "checkpoints"
CHECKPOINT_KIND = "checkpoint"
RELEASE_KIND, RELEASE_RECORD_NAME = "release", "release.json"
STATE_NAME = "state.json"
APPLIED = ("choices", "choose")
"""Sections that are applied before a run begins, so recorded values already include them."""


@dataclass(frozen=True)
class Recorded:
    """Plain values of a recipe, and the file that holds them."""

    values: dict[str, Any]
    place: Path


def is_run(folder: Path) -> bool:
    """Tell whether ``folder`` holds a run: a recipe or a checkpoint.

    A release holds these too, but nothing may train in it.
    """
    return holds_recipe(folder) and not is_released(folder)


def is_released(folder: Path) -> bool:
    """Tell whether ``folder`` is a release: by its record, or by its manifest if one is lost."""
    return (folder / RELEASE_RECORD_NAME).is_file() or kind_of(folder) == RELEASE_KIND


def holds_recipe(folder: Path) -> bool:
    """Tell whether ``folder`` is a run or a release with a recipe or a checkpoint."""
    return (folder / RECIPE_NAME).is_file() or bool(_checkpoints(folder))


def recorded_recipe(folder: Path) -> Recorded | None:
    """Return the recipe in the newest readable checkpoint of a run or a release, or None."""
    for checkpoint in reversed(_checkpoints(folder)):
        try:
            place = open_artifact(checkpoint, CHECKPOINT_KIND).file(STATE_NAME)
            state = json.loads(place.read_text(encoding="utf-8"))
        except (FeldsparError, OSError):
            continue  # an error follows when its weights are needed
        if "recipe" in state:
            return Recorded(recorded_values(state["recipe"]), place)
    return None


def recorded_values(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a recorded recipe without the choices, which are already applied."""
    return {key: value for key, value in values.items() if key not in APPLIED}


def _checkpoints(folder: Path) -> list[Path]:
    """List the folders of checkpoints, oldest first."""
    place = folder / CHECKPOINTS_NAME
    if not place.is_dir():
        return []
    return sorted(each for each in place.iterdir() if each.name.isdigit() and each.is_dir())
