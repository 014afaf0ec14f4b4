"""Save the checkpoints of a run, find the newest valid one, and delete old ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

from feldspar.core.errors import RunError
from feldspar.core.files import TEMPORARY_MARK, remove_folder, remove_incomplete
from feldspar.core.progress import say
from feldspar.recipe.amounts import Unit
from feldspar.recipe.sections.runtime import CheckpointSettings, KeepSettings
from feldspar.runtime.checkpoint import (
    MODEL,
    OPTIMIZER,
    Checkpoint,
    Tensors,
    write_checkpoint,
)
from feldspar.runtime.collectives import on_each, on_first

DIGITS = 15


@dataclass(frozen=True)
class Candidate:
    """A checkpoint for the policy: its position in the run, and its metric, if any."""

    position: int
    metric: float | None = None


def positions_to_keep(
    candidates: Sequence[Candidate], keep: KeepSettings, every: int | None
) -> set[int]:
    """Return the positions of the checkpoints to keep.

    The answer stays the same after the others were deleted. Of equally good ones the earliest is
    the best.
    """
    ordered = sorted(candidates, key=lambda candidate: candidate.position)
    stay = {candidate.position for candidate in ordered[-keep.last :]}
    if every is not None:
        multiples_seen = {0}
        for candidate in ordered:
            multiple = candidate.position // every
            if multiple not in multiples_seen:
                multiples_seen.add(multiple)
                stay.add(candidate.position)
    best = best_of(ordered, keep)
    return stay if best is None else stay | {best}


def best_of(candidates: Sequence[Candidate], keep: KeepSettings) -> int | None:
    """Return the position of the checkpoint with the best metric; None if none has the metric."""
    sign = 1.0 if keep.best_is == "lowest" else -1.0
    measured = [
        (sign * candidate.metric, candidate.position)
        for candidate in candidates
        if candidate.metric is not None and not isnan(candidate.metric)
    ]
    return min(measured)[1] if measured and keep.best is not None else None


class CheckpointStore:
    """The folder ``checkpoints`` of a run; each process calls each method.

    ``keep_every`` is ``settings.keep.every`` as a length in positions. It may be left out if that
    amount is given in tokens.
    """

    def __init__(
        self,
        folder: Path,
        settings: CheckpointSettings | None = None,
        keep_every: int | None = None,
    ) -> None:
        self.folder = folder
        self._keep = (settings or CheckpointSettings()).keep
        every = self._keep.every
        if keep_every is None and every is not None and every.unit is Unit.TOKENS:
            keep_every = max(int(every.value), 1)
        self._keep_every = keep_every
        self._damaged: set[int] = set()

    def remove_incomplete(self) -> None:
        """Delete unfinished files of a killed process; only for the process that trains."""
        on_first(lambda: remove_incomplete(self.folder))

    def save(
        self, position: int, model_state: Tensors, optimizer_state: Tensors, state: dict[str, Any]
    ) -> Path:
        """Write the checkpoint at ``position`` (an existing one is replaced) and return its folder.

        ``state`` is any JSON mapping. Its ``tensors`` may hold tensors that are equal on all
        processes, and its ``metrics`` the numbers for ``keep.best``. Raises SetupError if the disk
        is full; then earlier checkpoints are unchanged.
        """
        checkpoint = self._at(position)
        write_checkpoint(checkpoint.folder, model_state, optimizer_state, state)
        self._damaged.discard(position)
        return checkpoint.folder

    def all(self) -> list[Checkpoint]:
        """Return the finished checkpoints, oldest first; they are not verified."""
        if not self.folder.is_dir():
            return []
        names = sorted(entry.name for entry in self.folder.iterdir() if entry.is_dir())
        return [Checkpoint(self.folder / name) for name in names if name.isdigit()]

    def newest_valid(self) -> Checkpoint | None:
        """Return the newest checkpoint whose files match their digests, or None if there is no
        checkpoint.

        Reports each damaged one. Raises RunError if there are checkpoints and all are damaged.
        """
        position, damaged = on_first(self._search)
        self._damaged.update(damaged)
        return None if position is None else self._at(position)

    def load(
        self,
        checkpoint: Checkpoint,
        model_like: Tensors | None = None,
        optimizer_like: Tensors | None = None,
    ) -> dict[str, Any]:
        """Fill the given tensors in place, each process its own part, and return the state.

        None leaves a part out. Raises RunError if names, shapes or types differ.
        """

        def fill() -> None:
            if model_like is not None:
                checkpoint.fill(MODEL, model_like)
            if optimizer_like is not None:
                checkpoint.fill(OPTIMIZER, optimizer_like)

        on_each(fill)
        return checkpoint.state

    def clear(self) -> None:
        """Delete all checkpoints, newest first, even if the folder is a link."""
        for checkpoint in reversed(self.all()):
            _remove(checkpoint)
        remove_incomplete(self.folder)

    def prune(self) -> None:
        """Delete checkpoints that the policy does not keep, and damaged ones that were skipped."""
        on_first(self._prune)

    def best(self) -> Checkpoint | None:
        """Return the checkpoint with the best value of ``keep.best`` among those that exist."""
        position = best_of(self._candidates(), self._keep)
        return None if position is None else self._at(position)

    def _at(self, position: int) -> Checkpoint:
        return Checkpoint(self.folder / f"{position:0{DIGITS}d}")

    def _search(self) -> tuple[int | None, list[int]]:
        damaged: list[int] = []
        first_problem = ""
        for checkpoint in reversed(self.all()):
            problems = checkpoint.problems()
            if not problems:
                if damaged:
                    say(f"continuing from the previous valid checkpoint {checkpoint.folder}")
                return checkpoint.position, damaged
            damaged.append(checkpoint.position)
            first_problem = first_problem or f"{checkpoint.folder}: {problems[0]}"
            say(f"damaged checkpoint {checkpoint.folder}: {'; '.join(problems)}")
        if damaged:
            raise RunError(
                f"all {len(damaged)} checkpoints in {self.folder} are damaged",
                where=first_problem,
                do="restore one from a copy, or delete the folder to start from the beginning",
            )
        return None, damaged

    def _candidates(self) -> list[Candidate]:
        name = self._keep.best
        candidates = []
        for checkpoint in self.all():
            if checkpoint.position in self._damaged:
                continue
            metric = checkpoint.metrics.get(name) if name else None
            candidates.append(Candidate(checkpoint.position, metric))
        return candidates

    def _prune(self) -> None:
        stay = positions_to_keep(self._candidates(), self._keep, self._keep_every)
        for checkpoint in self.all():
            if checkpoint.position not in stay:
                _remove(checkpoint)


def _remove(checkpoint: Checkpoint) -> None:
    """Delete a checkpoint's folder."""
    # Rename it first, so that a process killed here leaves no folder that looks finished.
    doomed = checkpoint.folder.with_name(f"{checkpoint.folder.name}{TEMPORARY_MARK}old")
    checkpoint.folder.rename(doomed)
    remove_folder(doomed)
