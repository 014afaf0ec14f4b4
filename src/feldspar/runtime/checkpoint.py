"""One checkpoint: a folder that appears whole, names the digest of each file, and is verified.

It holds ``model*.safetensors``, ``optimizer*.safetensors``, ``tensors.safetensors`` (the state's
tensors, when there are any), ``state.json`` and ``manifest.json``. Nothing is pickled. What any
number of processes wrote, any other number reads (``shards``); a single process and copies of one
model write the same files.
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
from feldspar.core.manifest import FileRecord, Manifest, write_manifest
from feldspar.core.system_errors import translated
from feldspar.recipe.recorded import CHECKPOINT_KIND, STATE_NAME, Recorded, recorded_values
from feldspar.runtime.collectives import on_each, on_first
from feldspar.runtime.shards import TensorFiles, write_tensors

KIND = CHECKPOINT_KIND
MODEL, OPTIMIZER, TENSORS = "model", "optimizer", "tensors"

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A finished checkpoint on disk."""

    folder: Path

    @property
    def position(self) -> int:
        """Tokens (or images) that the run had seen when the checkpoint was written."""
        return int(self.folder.name)

    @property
    def state(self) -> dict[str, Any]:
        """Read the loop's state, its tensors under ``tensors``, and compare its checksum."""
        state = json.loads(self._opened.file(STATE_NAME).read_text(encoding="utf-8"))
        tensors = self.files_of(TENSORS)
        if tensors.names():
            state[TENSORS] = {name: tensors.read(name) for name in tensors.names()}
        return state

    @property
    def recipe(self) -> Recorded:
        """The recipe that the run was trained by."""
        place = self._opened.file(STATE_NAME)
        state = json.loads(place.read_text(encoding="utf-8"))
        return Recorded(recorded_values(state["recipe"]), place)

    @property
    def metrics(self) -> dict[str, float]:
        """The state's ``metrics``; empty when there are none or the file is damaged."""
        try:
            text = self._opened.file(STATE_NAME).read_text(encoding="utf-8")
            return json.loads(text).get("metrics", {})
        except (OSError, FeldsparError):
            return {}

    def read_model(self) -> dict[str, torch.Tensor]:
        """Return the model's whole tensors on the CPU, whatever number of processes wrote them."""
        files = self.files_of(MODEL)
        return {name: files.read(name) for name in files.names()}

    def fill(self, stem: str, tensors: Tensors) -> None:
        """Fill this process's part of ``tensors`` in place.

        Raises RunError when names, shapes or types differ from what was saved.
        """
        files = self.files_of(stem)
        stored, wanted = set(files.names()), set(tensors)
        if stored != wanted:
            raise RunError(
                f"{self.folder} does not fit this {stem}: {len(wanted - stored)} tensors are "
                f"absent from it and {len(stored - wanted)} are unknown",
                found=", ".join(sorted(stored - wanted)) or "nothing unknown",
                allowed=sorted(wanted - stored)[:5] or "nothing more",
            )
        with torch.no_grad():
            for name, tensor in tensors.items():
                files.read_into(name, tensor)

    def problems(self) -> list[str]:
        """Compare its files with their checksums; a line for each that differs.

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
        """Open the tensors of a group, ``model`` or ``optimizer``; whoever chose this checkpoint
        has looked at ``problems``.
        """
        names = (name for name in self._opened.names("", ".safetensors") if name.startswith(stem))
        return TensorFiles([self.folder / name for name in names])


def write_checkpoint(
    folder: Path, model: Tensors, optimizer: Tensors, state: dict[str, Any]
) -> None:
    """Write a checkpoint; each process calls this with its own part.

    Rank 0 makes a temporary sibling, each process writes and digests its files there, and rank 0
    renames it when all have ended well. Raises, on each process, SetupError when a disk is full:
    the temporary folder is then gone and earlier checkpoints are as they were.
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
