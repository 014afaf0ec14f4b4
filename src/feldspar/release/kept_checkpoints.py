"""Put the checkpoints that a run kept into its release, and take one out again to continue it.

Files are linked where the file system allows it, because a checkpoint is written once and never
changed: a release then needs no further space, and stays whole when the run is deleted.
"""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from feldspar.core.errors import FeldsparError, RunError
from feldspar.core.manifest import (
    FileRecord,
    Manifest,
    content_problem,
    read_manifest,
    size_problem,
    write_manifest,
)
from feldspar.recipe.recorded import CHECKPOINTS_NAME, STATE_NAME
from feldspar.runtime.checkpoint import KIND, OPTIMIZER, Checkpoint
from feldspar.runtime.checkpoint_store import CheckpointStore
from feldspar.runtime.run_folder import RunFolder

Kept = Literal["none", "weights", "all"]


def checkpoints_to_release(run: Path, last: int, kept: Kept) -> list[Checkpoint]:
    """Return the checkpoints of a run up to the position ``last``, that of the released model.

    Raises RunError for a checkpoint with a damaged file that ``kept`` asks for, and for a damaged
    one after ``last``, which the release would lack in silence.
    """
    found = []
    for checkpoint in CheckpointStore(RunFolder(run).checkpoints).all():
        problems, is_after = checkpoint.problems(), checkpoint.position > last
        weights_are_whole = not problems or _holds_whole_weights(checkpoint)
        if problems and kept != "none" and (kept == "all" or is_after or not weights_are_whole):
            raise _damaged(checkpoint, problems, weights_are_whole and not is_after)
        if not is_after and (not problems or kept == "weights"):
            found.append(checkpoint)
    return found


def _holds_whole_weights(checkpoint: Checkpoint) -> bool:
    """Tell whether nothing but the state of the optimizer is damaged in a checkpoint."""
    try:
        files = _chosen(read_manifest(checkpoint.folder, KIND), "weights")
        places = [(checkpoint.folder / name, record) for name, record in files.items()]
        return not any(size_problem(*each) or content_problem(*each) for each in places)
    except (OSError, FeldsparError):
        return False


def _damaged(checkpoint: Checkpoint, problems: list[str], weights_help: bool) -> RunError:
    ways = ["restore the file from a copy"]
    if weights_help:
        ways.append("release the weights alone (--checkpoints weights)")
    ways.append("delete the folder to release the run without this checkpoint")
    return RunError(
        f"a checkpoint to be released is damaged: {problems[0]}",
        where=str(checkpoint.folder),
        do=f"{', '.join(ways[:-1])}, or {ways[-1]}",
    )


def size_of(checkpoints: list[Checkpoint], kept: Kept) -> int:
    """Return the bytes of the checkpoints' files in a release."""
    return sum(
        record.bytes
        for checkpoint in checkpoints
        for name, record in _chosen(read_manifest(checkpoint.folder, KIND), kept).items()
    )


def place_checkpoints(checkpoints: list[Checkpoint], folder: Path, kept: Kept) -> None:
    """Link the files of checkpoints into ``folder``; ``weights`` leaves out the optimizer."""
    if kept == "none":
        return
    for checkpoint in checkpoints:
        manifest = read_manifest(checkpoint.folder, KIND)
        chosen = _chosen(manifest, kept)
        target = folder / CHECKPOINTS_NAME / checkpoint.folder.name
        for name in chosen:
            link(checkpoint.folder / name, target / name)
        write_manifest(target, replace(manifest, files=chosen))


def link(source: Path, target: Path) -> None:
    """Link a file that is never changed, or copy it where the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, or no links there
        shutil.copyfile(source, target)


def describe(checkpoint: Path) -> dict[str, Any]:
    """Return what a released checkpoint holds, read from its files."""
    manifest = read_manifest(checkpoint, KIND)
    state = json.loads((checkpoint / STATE_NAME).read_text(encoding="utf-8"))
    names = list(manifest.files)
    return {
        "folder": f"{CHECKPOINTS_NAME}/{checkpoint.name}",
        "step": state["step"],
        "tokens": int(checkpoint.name),
        "phase": state["recipe"]["phases"][state["phase"]]["name"],
        "weights": any(name.startswith("model") for name in names),
        "optimizer": any(name.startswith(OPTIMIZER) for name in names),
        "processes": manifest.counts.get("processes"),
        "bytes": sum(record.bytes for record in manifest.files.values()),
        "metrics": state.get("metrics", {}),
    }


def _chosen(manifest: Manifest, kept: Kept) -> dict[str, FileRecord]:
    if kept == "none":
        return {}
    return {
        name: record
        for name, record in manifest.files.items()
        if kept == "all" or not name.startswith(OPTIMIZER)
    }
