"""Unpack a checkpoint of a release into a run folder, which training continues bit for bit."""

import shutil
from pathlib import Path

from feldspar.core.artifact import open_artifact
from feldspar.core.errors import UserError
from feldspar.core.files import new_folder, require_absent
from feldspar.core.records import append_record
from feldspar.recipe.recorded import (
    ADAPTATION_NAME,
    BAD_BATCHES_NAME,
    CHECKPOINTS_NAME,
    EVENTS_NAME,
    METRICS_NAME,
    RECIPE_NAME,
    RELEASE_KIND,
)
from feldspar.release.kept_checkpoints import describe, link
from feldspar.runtime.checkpoint_store import DIGITS

COPIED = (RECIPE_NAME, METRICS_NAME, EVENTS_NAME, BAD_BATCHES_NAME, ADAPTATION_NAME)


def unpack_release(
    release: Path, to: Path, checkpoint: str = "last", needs_optimizer: bool = True
) -> Path:
    """Write the run folder ``to`` with a checkpoint of a release; return ``to``.

    ``checkpoint`` is last or a number of tokens. Every file is compared with its checksum. Raises
    UserError where ``to`` exists, and for a checkpoint that the release lacks, or that has no state
    of the optimizer though it ``needs_optimizer``; RunError for a damaged file.
    """
    opened = open_artifact(release, RELEASE_KIND)
    require_absent(to)
    folder = _chosen(release, checkpoint)
    under = f"{CHECKPOINTS_NAME}/{folder.name}"
    copied = [name for name in (*COPIED, *opened.names("tokenizer")) if name in opened.names()]
    opened.files([*copied, *opened.names(under)])
    found = describe(folder)
    if needs_optimizer and not found["optimizer"]:
        raise UserError(
            f"{folder} has weights only, so training cannot continue from it bit for bit",
            do=f"start a new run from its weights: start_from={{type: run, path: {release}, "
            f"checkpoint: '{found['tokens']}'}}",
        )
    with new_folder(to) as run:
        for name in copied:
            (run / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(release / name, run / name)
        for name in opened.names(under):
            link(release / name, run / name)
        details = {"tokens": found["tokens"], "step": found["step"]}
        append_record(
            run / EVENTS_NAME,
            {"event": "unpacked", **details, "release": opened.manifest.digest},
        )
    return to


def _chosen(release: Path, checkpoint: str) -> Path:
    """Return the folder of a checkpoint. Raises UserError where the release has none of it."""
    found = (release / CHECKPOINTS_NAME).glob("*")
    folders = sorted(folder for folder in found if folder.name.isdigit())
    if not folders:
        raise UserError(
            f"{release} was released without checkpoints",
            do="start a new run from its weights: start_from={type: huggingface, path: FOLDER}",
        )
    if checkpoint == "last":
        return folders[-1]
    name = f"{int(checkpoint):0{DIGITS}d}" if checkpoint.isdigit() else checkpoint
    for folder in folders:
        if folder.name == name:
            return folder
    raise UserError(
        f"{release} has no checkpoint at {checkpoint} tokens",
        allowed=["last", *(str(int(folder.name)) for folder in folders)],
    )
