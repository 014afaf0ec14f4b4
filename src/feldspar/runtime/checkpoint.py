"""One checkpoint: a folder that appears whole, has a digest of each file, and is verified.

It has ``model*.safetensors``, ``optimizer*.safetensors``, ``tensors.safetensors`` (tensors of the
state, if there are any), ``state.json`` and ``manifest.json``. Nothing is pickled. Any number of
processes can read what any other number wrote (see ``shards``). A single process and several copies
of one model write the same files.
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from feldspar import __version__
from feldspar.core.artifact import Artifact, open_artifact
from feldspar.core.errors import FeldsparError, RunError
from feldspar.core.files import new_folder, sha256_of_file, write_atomically
from feldspar.core.manifest import FileRecord, Manifest, read_manifest, write_manifest
from feldspar.core.system_errors import translated
from feldspar.recipe.recorded import CHECKPOINT_KIND, STATE_NAME, Recorded, recorded_values
from feldspar.runtime.collectives import on_each, on_first
from feldspar.runtime.shards import LastRows, TensorFiles, write_tensors

KIND = CHECKPOINT_KIND
MODEL, OPTIMIZER, TENSORS = "model", "optimizer", "tensors"

Tensors = Mapping[str, torch.Tensor | LastRows]


@dataclass(frozen=True)
class Checkpoint:
    """A finished checkpoint on disk."""

    folder: Path

    @property
    def position(self) -> int:
        """Number of tokens (or images) before the checkpoint."""
        return int(self.folder.name)

    @property
    def state(self) -> dict[str, Any]:
        """State of the loop, with its tensors under ``tensors``; its checksum is verified."""
        state = json.loads(self._opened.file(STATE_NAME).read_text(encoding="utf-8"))
        tensors = self.files_of(TENSORS)
        if tensors:
            state[TENSORS] = dict(tensors)
        return state

    @property
    def recipe(self) -> Recorded:
        """Recipe of the run."""
        place = self._opened.file(STATE_NAME)
        state = json.loads(place.read_text(encoding="utf-8"))
        return Recorded(recorded_values(state["recipe"]), place)

    @property
    def metrics(self) -> dict[str, float]:
        """The state's ``metrics``; empty if there are none or the file is damaged."""
        try:
            text = self._opened.file(STATE_NAME).read_text(encoding="utf-8")
            return json.loads(text).get("metrics", {})
        except (OSError, FeldsparError):
            return {}

    def identity(self) -> dict[str, Any]:
        """Return what tells its weights from others: tokens, and the SHA-256 of each of their
        files, as the manifest lists it."""
        files = read_manifest(self.folder, KIND).files
        names = sorted(name for name in files if name.startswith(MODEL))
        return {
            "tokens": self.position,
            "weights": {name: files[name].sha256 for name in names},
        }

    def read_model(self) -> TensorFiles:
        """Return the model's whole tensors, whatever number of processes wrote them.

        Each is read when it is asked for, and lies on the CPU.
        """
        return self.files_of(MODEL)

    def fill(self, stem: str, tensors: Tensors) -> None:
        """Fill this process's part of ``tensors`` in place.

        Raises RunError if names, shapes or types differ from the saved ones.
        """
        files = self.files_of(stem)
        stored, wanted = set(files), set(tensors)
        if stored != wanted:
            raise RunError(
                f"{self.folder} does not fit this {stem}: it lacks {len(wanted - stored)} "
                f"tensors and has {len(stored - wanted)} unknown ones",
                found=", ".join(sorted(stored - wanted)) or "nothing unknown",
                allowed=sorted(wanted - stored)[:5] or "nothing more",
            )
        with torch.no_grad():
            for name, tensor in tensors.items():
                files.read_into(name, tensor)

    def problems(self) -> list[str]:
        """Verify the files; return a line for each that differs.

        A checkpoint that cannot be read (no permission, a bad disk) counts as damaged.
        """
        try:
            return self._opened.problems()
        except Exception as error:
            told = translated(error)
            if told is None:
                raise
            return [told.what]

    @cached_property
    def _opened(self) -> Artifact:
        return open_artifact(self.folder, KIND)

    def files_of(self, stem: str) -> TensorFiles:
        """Open the tensors of a group, ``model`` or ``optimizer``; the caller has checked
        ``problems``."""
        names = (name for name in self._opened.names("", ".safetensors") if name.startswith(stem))
        return TensorFiles([self.folder / name for name in names])


def write_checkpoint(
    folder: Path, model: Tensors, optimizer: Tensors, state: dict[str, Any]
) -> None:
    """Write a checkpoint; each process calls this with its own part.

    Rank 0 makes a temporary folder, each process writes and digests its files there, and rank 0
    renames the folder when all have finished. Raises SetupError on each process if a disk is full;
    then the temporary folder is deleted and earlier checkpoints are unchanged.
    """
    groups = {MODEL: model, OPTIMIZER: optimizer, TENSORS: state.get(TENSORS, {})}
    plain = {key: value for key, value in state.items() if key != TENSORS}
    with ExitStack() as stack:
        temporary = Path(
            on_first(lambda: str(stack.enter_context(new_folder(folder, overwrite=True))))
        )

        def write_own_files() -> dict[str, Any]:
            paths = [
                write_tensors(temporary, stem, tensors)
                for stem, tensors in groups.items()
                if tensors
            ]
            return {path.name: asdict(_record(path)) for path in paths if path is not None}

        written = on_each(write_own_files)

        def write_state() -> None:
            write_atomically(temporary / STATE_NAME, json.dumps(plain, indent=1) + "\n")
            files = {
                name: FileRecord(**record) for part in written for name, record in part.items()
            }
            files[STATE_NAME] = _record(temporary / STATE_NAME)
            counted = "images" if "images" in plain else "tokens"
            counts = {counted: int(folder.name), "processes": len(written)}
            write_manifest(temporary, Manifest(KIND, "", __version__, counts=counts, files=files))

        on_first(write_state)
        on_first(stack.pop_all().close)


def _record(path: Path) -> FileRecord:
    return FileRecord(path.stat().st_size, sha256_of_file(path))
