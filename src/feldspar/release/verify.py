"""Verify a release: every byte of the folder, what it states of itself, and the order of its data.

Loads no torch: whoever was given a release can check it without the means to run it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feldspar.core.errors import UserError
from feldspar.core.json_files import read_json
from feldspar.core.manifest import (
    MANIFEST_NAME,
    Manifest,
    manifest_text,
    read_manifest,
    verify_files,
)
from feldspar.core.records import read_records
from feldspar.recipe.recorded import METRICS_NAME, RELEASE_KIND, RELEASE_RECORD_NAME
from feldspar.release.released_order import open_order, read_indices
from feldspar.release.stored_tensors import stored_entries


@dataclass(frozen=True)
class Verified:
    """Findings of a verification."""

    problems: tuple[str, ...]
    """A line for each fault."""
    files: int
    bytes: int
    order: str
    """State of the order of the data, in words."""


def verify_files_of(folder: Path) -> list[str]:
    """Compare every byte of a release with its manifest; return a line for each difference.

    Every file is read again; remembered comparisons do not count. Raises UserError when the folder
    is not a release, RunError when its manifest was altered.
    """
    manifest = read_manifest(folder, RELEASE_KIND)
    problems = verify_files(folder, manifest)
    written = (folder / MANIFEST_NAME).read_text(encoding="utf-8")
    if written != manifest_text(manifest):
        problems.append(f"{MANIFEST_NAME}: it is not written as feldspar writes it")
    return problems


def verify_release(folder: Path, shards: Path | None = None) -> Verified:
    """Verify a release, and the order of its data by ``shards`` (default: those of the recipe).

    Raises UserError when the folder is not a release, or when ``shards`` is no folder of shards;
    RunError when the manifest was altered.
    """
    manifest = read_manifest(folder, RELEASE_KIND)
    problems = verify_files_of(folder)
    order = "not checked, because files differ"
    if not problems:
        record = read_json(folder / RELEASE_RECORD_NAME)
        problems += _record_problems(folder, manifest, record)
        found, order = _order_problems(folder, record, shards)
        problems += found
    size = sum(each.bytes for each in manifest.files.values())
    return Verified(tuple(problems), len(manifest.files), size, order)


def _record_problems(folder: Path, manifest: Manifest, record: dict[str, Any]) -> Iterator[str]:
    listed = {name: (each["bytes"], each["sha256"]) for name, each in record["files"].items()}
    present = {name: (each.bytes, each.sha256) for name, each in manifest.files.items()}
    present.pop(RELEASE_RECORD_NAME, None)
    for name in sorted(listed.keys() | present.keys()):
        if listed.get(name) != present.get(name):
            yield (
                f"{RELEASE_RECORD_NAME}: it states another size or digest of {name} than "
                f"{MANIFEST_NAME}"
            )
    weights = record["model"]["weights"]
    yield from _count(folder, weights["files"], weights["entries"])
    for checkpoint in record["checkpoints"]:
        place = folder / checkpoint["folder"]
        names = sorted(path.name for path in place.glob("*.safetensors"))
        models = [f"{checkpoint['folder']}/{n}" for n in names if n.startswith("model")]
        yield from _count(folder, models, checkpoint["entries"])
        if checkpoint["optimizer"] != any(name.startswith("optimizer") for name in names):
            yield f"{checkpoint['folder']}: it states a state of the optimizer, and has none"
    steps = [each.get("step") for each in read_records(folder / METRICS_NAME)]
    if len(set(steps)) < len(steps):
        yield f"{METRICS_NAME}: a step is recorded twice"


def _count(folder: Path, names: list[str], stated: int) -> Iterator[str]:
    found = stored_entries(folder / name for name in names)
    if found != stated:
        yield f"{', '.join(names)}: {found:,} parameters, but {stated:,} are stated"


def _order_problems(
    folder: Path, record: dict[str, Any], given: Path | None
) -> tuple[list[str], str]:
    """Recompute the data order where the shards are at hand; return the faults, and what is known.

    Shards that the recipe names are used if they are the run's own; shards that the caller names
    must be.
    """
    if record["data_order"] is None:
        return [], "the release has none"
    try:
        opened = open_order(folder, given)
    except UserError as error:
        if given is not None:
            raise
        return [], f"not recomputed: {error.what}; name the shards with --shards"
    problems = opened.problems(read_indices(folder, opened.record))
    chunks, all_chunks = opened.chunks, opened.record["chunks"]
    sequences = sum(chunk.sequences for chunk in chunks)
    told = f"{len(chunks)} chunks of {sequences:,} sequences recomputed from {opened.shards.path}"
    left = len(all_chunks) - len(chunks)
    return problems, told + (f"; {left} chunks of examples cannot be recomputed" if left else "")
