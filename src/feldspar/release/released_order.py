"""Open the data order that a release records, beside the shards, and find what a step read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from feldspar.core.errors import FeldsparError, UserError
from feldspar.core.json_files import read_json
from feldspar.core.records import read_steps
from feldspar.recipe.recorded import METRICS_NAME
from feldspar.tokens.sequences.data_order import RecordedOrder
from feldspar.tokens.shards.shard_folder import ShardSet

FOLDER_NAME = "data_order"
ORDER_NAME = "order.json"


def open_order(release: Path, shards: Path | None = None) -> RecordedOrder:
    """Open the order of a release with ``shards``, by default those that its recipe names.

    Raises UserError where the shards are not at hand, or are not those that the run read.
    """
    path = shards or _shards_of_recipe(release)
    if path is None or not path.is_dir():
        raise UserError("the shards are not at hand", do="name their folder with --shards")
    return RecordedOrder(read_json(release / FOLDER_NAME / ORDER_NAME), ShardSet.open(path))


def read_indices(release: Path, order: Mapping[str, Any]) -> dict[int, np.ndarray]:
    """Return the index of each phase."""
    return {
        int(phase): np.load(release / FOLDER_NAME / name, allow_pickle=False)
        for phase, name in order["index"].items()
    }


def step_order(release: Path, step: int, shards: Path | None = None) -> dict[str, Any]:
    """Return the phase of a step, and the place of each of its sequences in the shards.

    Raises UserError for a step that the run did not take, and as ``open_order``.
    """
    if not (release / FOLDER_NAME / ORDER_NAME).is_file():
        raise UserError(
            f"{release} records no data order",
            do="release the run where its shards are: feldspar release RUN --out FOLDER",
        )
    order = open_order(release, shards)
    steps = read_steps(release / METRICS_NAME)
    found = next((number for number, each in enumerate(steps) if each["step"] == step), None)
    if found is None:
        last = steps[-1]["step"] if steps else 0
        raise UserError(f"--step {step}: {release} has no record of it", allowed=f"1 to {last}")
    before = steps[found - 1]["tokens"] if found else 0
    phases = order.record["phases"]
    index = max(n for n, phase in enumerate(phases) if phase["start_position"] <= before)
    length = phases[index]["context_length"]
    first = (before - phases[index]["start_position"]) // length
    sequences = (steps[found]["tokens"] - before) // length
    return {
        "step": step,
        "phase": phases[index]["name"],
        "context_length": length,
        "sequences": order.sequence_places(index, first, sequences),
    }


def _shards_of_recipe(release: Path) -> Path | None:
    from feldspar.recipe.load import load_recipe

    try:
        shards = load_recipe(str(release)).recipe.shards
    except FeldsparError:
        return None
    return None if shards is None else shards.path
