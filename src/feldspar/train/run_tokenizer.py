"""A run's own copy of its shards' tokenizer: a finished folder that checkpoints refer to."""

from pathlib import Path

from feldspar import __version__
from feldspar.core.artifact import open_artifact
from feldspar.core.errors import FeldsparError, RunError
from feldspar.core.files import copy_folder
from feldspar.core.manifest import Manifest, write_manifest
from feldspar.runtime.checkpoint import Checkpoint
from feldspar.tokens.shards.build_shards import TOKENIZER_FOLDER
from feldspar.tokens.shards.shard_folder import ShardSet

KIND = "tokenizer"
TOKENIZER_KEY = "tokenizer"
"""The key in a checkpoint's state for the digest of the copy's manifest."""


def tokenizer_manifest(shards: ShardSet) -> Manifest:
    """Return the manifest of a copy of the shards' tokenizer."""
    inside = f"{TOKENIZER_FOLDER}/"
    files = {
        name.removeprefix(inside): record
        for name, record in shards.manifest.files.items()
        if name.startswith(inside)
    }
    counts = {"vocab_size": shards.vocab_size}
    return Manifest(KIND, shards.tokenizer_digest, __version__, counts=counts, files=files)


def keep_tokenizer(shards: ShardSet, run: Path) -> None:
    """Copy the shards' tokenizer into a run's folder, unless a whole copy exists."""
    folder, manifest = run / TOKENIZER_FOLDER, tokenizer_manifest(shards)
    if _problem(folder, manifest.digest) is not None:
        copy_folder(shards.tokenizer, folder)
        write_manifest(folder, manifest)


def run_tokenizer(run: Path, checkpoint: Checkpoint) -> Path:
    """Return the folder of a run's tokenizer after comparing it with the checkpoint's.

    Raises RunError where the folder is damaged or another tokenizer.
    """
    folder = run / TOKENIZER_FOLDER
    problem = _problem(folder, checkpoint.state.get(TOKENIZER_KEY))
    if problem is not None:
        raise RunError(problem, do=f"continue the run, which copies it again: feldspar train {run}")
    return folder


def _problem(folder: Path, digest: str | None) -> str | None:
    try:
        opened = open_artifact(folder, KIND)
        opened.verify()
    except FeldsparError as error:
        return error.what
    if opened.manifest.digest != digest:
        return f"{folder} is another tokenizer than the one that the run was trained with"
    return None
