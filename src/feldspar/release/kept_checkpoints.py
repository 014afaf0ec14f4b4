"""Put the checkpoints that a run kept into its release, and take one out again to continue it.

Files are linked where the file system allows it, because a checkpoint is written once and never
changed: a release then needs no further space, and stays whole when the run is deleted.
"""

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from feldspar.core.manifest import FileRecord, Manifest, read_manifest, write_manifest
from feldspar.recipe.recorded import CHECKPOINTS_NAME, STATE_NAME
from feldspar.runtime.checkpoint import KIND, OPTIMIZER, Checkpoint
from feldspar.runtime.checkpoint_store import CheckpointStore
from feldspar.runtime.run_folder import RunFolder

Kept = Literal["none", "weights", "all"]


@dataclass(frozen=True)
class LeftOut:
    """A checkpoint that a release lacks, and the reason."""

    position: int
    reason: str


def whole_checkpoints(run: Path, last: int) -> tuple[list[Checkpoint], list[LeftOut]]:
    """Return the whole checkpoints of a run up to the position ``last``, and the damaged ones."""
    whole, damaged = [], []
    for checkpoint in CheckpointStore(RunFolder(run).checkpoints).all():
        if checkpoint.position > last:
            continue
        if problems := checkpoint.problems():
            damaged.append(LeftOut(checkpoint.position, f"it is damaged: {problems[0]}"))
        else:
            whole.append(checkpoint)
    return whole, damaged


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
