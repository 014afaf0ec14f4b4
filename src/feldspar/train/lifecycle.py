"""The life of any run in its folder: it begins or resumes, trains, and finishes.

A run resumes only with a recipe that agrees with the finished steps.
"""

import os
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from feldspar.core.differences import differences
from feldspar.core.errors import UserError
from feldspar.core.files import empty_folder
from feldspar.core.machine import host_digest
from feldspar.core.progress import progress, say
from feldspar.core.software import software
from feldspar.plan.timeline import Timeline
from feldspar.recipe.load import LoadedRecipe, LoadedVisionRecipe, plain
from feldspar.recipe.recorded import recorded_values
from feldspar.runtime.checkpoint import Checkpoint
from feldspar.runtime.checkpoint_store import CheckpointStore
from feldspar.runtime.collectives import on_first, world_size
from feldspar.runtime.device import hardware
from feldspar.runtime.distributed import Distribution
from feldspar.runtime.run_folder import RunFolder
from feldspar.runtime.signals import GracefulStop
from feldspar.runtime.threads import ThreadChoice, choose_threads
from feldspar.train.trainer import Trainer


@dataclass(frozen=True)
class RunResult:
    """The state of a run: its folder, position, steps and last validation."""

    folder: Path
    position: int
    steps: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class OpenRun:
    """A run whose folder is locked by this process and those that train with it."""

    loaded: LoadedRecipe | LoadedVisionRecipe
    timeline: Timeline
    folder: RunFolder
    store: CheckpointStore
    stop: GracefulStop
    checkpoint: Checkpoint | None
    """The newest whole checkpoint, from which the run continues. None: the run begins."""
    state: dict[str, Any]
    """The state of that checkpoint. Empty where the run begins."""
    changes: tuple[str, ...]
    """Differences between the recipe and the checkpoint's, a line each."""

    def choose_threads(self, distribution: Distribution) -> ThreadChoice:
        """Return the number of threads, or the numbers to choose from, as the run recorded it."""
        # A run that ended before its first checkpoint is begun again, with the same threads.
        begins = self.checkpoint is None
        recorded = self.folder.recorded_threads() if begins else self.state.get("threads")
        runtime = self.loaded.recipe.runtime
        return choose_threads(runtime, distribution.device, distribution.world_size, recorded)

    def begin(
        self,
        trainer: Trainer,
        write_files: Callable[[RunFolder], None],
        tell_start: Callable[[], dict[str, Any]],
    ) -> None:
        """Move a trainer, and the records in the folder, to the state of the run.

        ``write_files`` writes the recipe and whatever else the folder holds beside records and
        checkpoints. ``tell_start`` says what is worth knowing of a new run, and returns details of
        the event ``started``.
        """
        if self.checkpoint is not None:
            self._resume(trainer, self.checkpoint, write_files)
            return

        def write() -> None:
            self.folder.forget()
            write_files(self.folder)
            trainer.event("started", **self._process(trainer), **tell_start())

        on_first(write)

    def _resume(
        self, trainer: Trainer, checkpoint: Checkpoint, write_files: Callable[[RunFolder], None]
    ) -> None:
        with progress(f"reading {checkpoint.folder}", unit=""):
            self.store.load(checkpoint, trainer.task.tensors(), trainer.optimizer.state())
        trainer.resume(self.state, str(checkpoint.folder))

        def write() -> None:
            records = self.state.get("records")
            damage = self.folder.restore(trainer.steps, trainer.position, records)
            write_files(self.folder)
            details = {"damaged_records": asdict(damage)} if damage else {}
            changes = list(self.changes)
            trainer.event("resumed", **self._process(trainer), changes=changes, **details)

        on_first(write)
        total = f"{self.timeline.length:,} {self.folder.position_unit}"
        say(f"resuming {self.folder.path} at {trainer.position:,} of {total}")

    def _process(self, trainer: Trainer) -> dict[str, Any]:
        """Return what a report says of the run before its first step, who trains it, by what code
        and with what hardware (that of the first process)."""
        parameters = list(trainer.task.model.parameters())
        return {
            "software": software(),
            "hardware": hardware(parameters[0].device, trainer.task.precision)
            | {"processes": world_size()},
            "length": self.timeline.length,
            "parameters": sum(each.numel() for each in parameters),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "process": os.getpid(),
            "host": host_digest(),
        }

    def finish(self, trainer: Trainer) -> RunResult:
        """Train to the end, or report that the run is complete."""
        if trainer.position >= self.timeline.length:
            say(f"{self.folder.path} is complete: nothing to do")
        else:
            trainer.train()
        return RunResult(self.folder.path, trainer.position, trainer.steps, trainer.metrics)


@contextmanager
def open_run(
    loaded: LoadedRecipe | LoadedVisionRecipe, timeline: Timeline, out: Path, overwrite: bool
) -> Generator[OpenRun]:
    """Lock the run's folder and find its newest whole checkpoint. Signals save and end the run.

    ``overwrite`` first deletes an earlier run. Raises UserError where ``out`` holds something that
    is not a run, where another process trains in it, and where the recipe differs from the
    checkpoint's in a setting that shaped finished steps.
    """
    recipe = loaded.recipe
    folder = RunFolder(out, recipe.position_unit)
    keep_every = recipe.checkpoints.keep.every
    store = CheckpointStore(
        folder.checkpoints,
        recipe.checkpoints,
        None
        if keep_every is None
        else timeline.interval(keep_every, timeline.phases[0], "checkpoints.keep.every"),
    )
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())

        def take_folder() -> None:
            check_folder(out)
            stack.enter_context(folder.lock())
            if overwrite:
                clear(folder, store)

        on_first(take_folder)
        stop = stack.enter_context(GracefulStop())
        store.remove_incomplete()
        on_first(folder.remove_incomplete)
        checkpoint = store.newest_valid()
        state, changes = {}, []
        if checkpoint is not None:
            state, where = checkpoint.state, str(checkpoint.folder)
            changes = check_same_past(state["recipe"], plain(loaded), state["phase"], where)
        yield OpenRun(loaded, timeline, folder, store, stop, checkpoint, state, tuple(changes))


def clear(folder: RunFolder, store: CheckpointStore) -> None:
    """Delete an earlier run in the folder, its checkpoints first.

    A process that is killed meanwhile leaves a run that resumes from an older checkpoint, or no
    run. Raises the system's error where a file cannot be removed.
    """
    store.clear()
    empty_folder(folder.path / "tensorboard")
    folder.clear()


def check_folder(path: Path) -> None:
    """Raise UserError when a folder holds something that is not a run."""
    if not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"{path} is a file; a run needs a folder")
    folder = RunFolder(path)
    if folder.checkpoints.is_symlink() and not folder.checkpoints.is_dir():
        raise UserError(
            f"{folder.checkpoints} is a link whose target is not a folder",
            found=folder.checkpoints.readlink(),
            do="mount or restore its target, or remove the link to start from the beginning",
        )
    foreign = [entry.name for entry in path.iterdir() if not entry.name.startswith(".")]
    if foreign and not folder.holds_run and not folder.is_claimed:
        raise UserError(
            f"{path} holds something that is not a run",
            found=", ".join(sorted(foreign)[:5]),
            do="choose another folder with --out",
        )


FIXED_SECTIONS = (
    *("seed", "start_from", "adapt", "model", "parametrization", "optimizer"),
    *("images", "task", "augmentation", "average_weights"),
)
"""Sections that shaped finished steps."""

FIXED_KEYS_OF_IMAGES = ("format", "mean", "std")
"""Keys of images that are compared as they stand; of others the images themselves are compared."""

RULES_OF_BATCH = ("gain", "maximum", "max_factor", "monotone", "objective", "learning_rate_power")
"""Keys of a batch that follows the noise scale. Only future decisions depend on them."""


def check_same_past(
    before: dict[str, Any], now: dict[str, Any], phase_index: int, where: str
) -> list[str]:
    """Return changes that affect only the future, as lines ``key: old -> new``.

    ``phase_index`` is the phase in which the run stopped. Raises UserError, with a line for each
    change, when a setting differs that shaped finished steps.
    """
    past: list[str] = []
    future: list[str] = []
    for key, old, new in differences(recorded_values(before), recorded_values(now)):
        line = f"{key}: {old} -> {new}"
        (past if _alters_past(key, phase_index) else future).append(line)
    if past:
        raise UserError(
            f"the recipe has changed since the run began: {past[0]}",
            where=where,
            found="; ".join(past),
            do="give the recipe that the run was started with, or choose another folder with --out",
        )
    return future


def _alters_past(key: str, phase_index: int) -> bool:
    parts = key.split(".")
    if parts[0] == "images" and parts[1] not in FIXED_KEYS_OF_IMAGES:
        return False  # the data are compared by content
    if parts == ["start_from", "recipe"]:
        return False  # it names the recipe that trains the parent run, and changes nothing here
    if parts[0] in FIXED_SECTIONS:
        return True
    if parts[0] == "phases" and len(parts) > 2:
        index = int(parts[1])
        tail = parts[2] in ("length", "learning_rate", "weight_decay") or parts[2].endswith("every")
        if parts[2] == "data" and parts[3:] in (["path"], ["tokens"], ["template"]):
            return False  # the tokens of the examples are compared, wherever the files lie
        tail |= parts[2] == "batch" and parts[-1] in RULES_OF_BATCH
        return index < phase_index or (index == phase_index and not tail)
    return False
