"""Find how much larger the batch may be, by branches of one run with 1, 2 and 4 times its batch.

Method of 2505.23971: train on from a checkpoint with batches B, 2 B and 4 B, and learning rates
scaled by the square root. The largest batch without a worse loss is accepted. This batch divided by
the noise scale at the checkpoint is the gain of a steered batch. All branches read the same
documents at the same positions, so losses are compared in pairs.
"""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from feldspar.core.errors import UserError
from feldspar.core.files import copy_folder, new_folder, remove_incomplete
from feldspar.core.student_t import half_width
from feldspar.recipe.load import LoadedRecipe, load_recipe
from feldspar.runtime.checkpoint import Checkpoint
from feldspar.runtime.run_folder import RunFolder
from feldspar.train.data import plan_loaded
from feldspar.train.load import find_checkpoint
from feldspar.train.run import train

FACTORS = (1, 2, 4)
TOLERANCE = 0.01
"""Loss in nats per token that a larger batch may cost (2505.23971)."""
LEAST_CHUNKS = 4
"""Smallest number of pairs of losses for a comparison."""
NEW_IN_BRANCH = (
    "name",
    "length",
    "batch",
    "learning_rate",
    "weight_decay",
    "optimizer_state",
    "optimizer",
    "checkpoint_every",
    "evaluate_every",
)


@dataclass(frozen=True)
class Branch:
    """One batch size, with its loss compared with the next smaller batch."""

    sequences: int
    folder: Path
    excess: float
    """Mean difference over the second half of the branch; 0 for the first branch."""
    half_width: float
    """Half the 95 % interval of ``excess`` by Student's t, over pairs of the same tokens."""
    passed: bool


@dataclass(frozen=True)
class BranchTest:
    """Results of the branches of one checkpoint."""

    tokens: int
    noise_scale: float
    """Noise scale of the whole model in sequences, as the run logged it there."""
    branches: tuple[Branch, ...]

    @property
    def accepted(self) -> int:
        """Largest accepted batch; all smaller ones are accepted too."""
        return [branch.sequences for branch in self.branches if branch.passed][-1]

    @property
    def gain(self) -> float:
        """Accepted batch divided by noise scale; NaN if the run did not measure it."""
        return self.accepted / self.noise_scale


def branch_test(
    run: Path,
    branch_tokens: int,
    out: Path,
    checkpoint: str = "last",
    factors: Sequence[int] = FACTORS,
    tolerance: float = TOLERANCE,
) -> BranchTest:
    """Train the branches of ``run`` from ``checkpoint``, each for ``branch_tokens`` tokens, in
    ``out``.

    The same call again continues where it stopped. Raises UserError for a run without a record of
    the checkpoint's step, and for branches that are too short to compare.
    """
    found = find_checkpoint(run, checkpoint)
    at = found.state["tokens"]
    rows = [row for row in RunFolder(run).steps() if row["tokens"] <= at]
    if not rows or rows[-1]["tokens"] != at:
        raise UserError(f"{run} has no record of the step at {at:,} tokens")
    last = rows[-1]
    # The last step of a steered phase may have fewer sequences than its batch size.
    batch = max(row["sequences"] for row in rows[-2:] if row["phase"] == last["phase"])
    loaded = load_recipe(str(run))
    context = loaded.recipe.context_length(loaded.recipe.phases[found.state["phase"]])
    chunk = batch * math.lcm(*factors) * context
    if branch_tokens < 2 * LEAST_CHUNKS * chunk:
        raise UserError(
            f"branches of {branch_tokens:,} tokens are too short to compare",
            allowed=f"at least {2 * LEAST_CHUNKS * chunk:,}: {2 * LEAST_CHUNKS} steps of the "
            "largest batch",
        )
    length = branch_tokens // chunk * chunk
    phases = {
        factor: branched_phases(loaded, found, last | {"sequences": batch}, factor, length)
        for factor in sorted(factors)
    }
    remove_incomplete(out)
    folders = [
        _train_branch(run, found, phases[factor], out / f"batch-x{factor}") for factor in phases
    ]
    losses = [_chunk_losses(folder, at, chunk) for folder in folders]
    branches: list[Branch] = []
    passed = True
    for place, (factor, folder) in enumerate(zip(phases, folders, strict=True)):
        excess, half = (0.0, 0.0) if place == 0 else paired_excess(*losses[place - 1 : place + 1])
        passed = passed and is_no_worse(excess, half, tolerance)
        branches.append(Branch(factor * batch, folder, excess, half, passed))
    return BranchTest(at, float(last.get("noise_scale/total", math.nan)), tuple(branches))


def _train_branch(
    run: Path, start: Checkpoint, phases: Sequence[Mapping[str, Any]], folder: Path
) -> Path:
    """Train on from a copy of the checkpoint; an unfinished copy is made again."""
    if not folder.is_dir():
        with new_folder(folder) as staging:
            copy_folder(start.folder, RunFolder(staging).checkpoints / start.folder.name)
            shutil.copyfile(RunFolder(run).metrics, RunFolder(staging).metrics)
    overrides = [f"phases={json.dumps(phases)}", "schedule={}"]
    overrides += ["checkpoints.every=100% of run", "evaluation.every=100% of run"]
    train(load_recipe(str(run), overrides), folder)
    return folder


def branched_phases(
    loaded: LoadedRecipe, start: Checkpoint, record: Mapping[str, Any], factor: int, length: int
) -> list[dict[str, Any]]:
    """Return the phases up to the checkpoint, and one more with ``factor`` times the batch."""
    values = json.loads(loaded.recipe.model_dump_json(by_alias=True))["phases"]
    index = start.state["phase"]
    start_position = plan_loaded(loaded).timeline.phases[index].start_position
    done = start.state["tokens"] - start_position
    # Earlier phases are cut at the checkpoint, so their schedules need not fit any more.
    current = values[index] | {
        "length": f"{done} tokens",
        "learning_rate": None,
        "weight_decay": None,
    }
    kept = {key: value for key, value in values[index].items() if key not in NEW_IN_BRANCH}
    rate = record["learning_rate"] * math.sqrt(factor)
    new = {
        "name": f"batch-x{factor}",
        "length": f"{length} tokens",
        "batch": {"sequences": factor * record["sequences"]},
        "learning_rate": rate,
        "weight_decay": record["weight_decay"],
        "optimizer_state": "keep",
        "allow_repeat": True,
    }
    return [*values[:index], current, kept | new]


def _chunk_losses(folder: Path, start: int, chunk: int) -> list[float]:
    """Return the mean loss of each ``chunk`` tokens after the checkpoint, the same tokens in each
    branch."""
    sums: dict[int, list[float]] = {}
    for row in RunFolder(folder).steps():
        if row["tokens"] > start:
            sums.setdefault((row["tokens"] - start - 1) // chunk, []).append(row["train/loss"])
    return [mean(values) for values in sums.values()]


def paired_excess(smaller: Sequence[float], larger: Sequence[float]) -> tuple[float, float]:
    """Return the mean excess of ``larger`` over ``smaller`` in the second half, and half its
    interval.

    Both hold the losses of the same tokens, in order.
    """
    pairs = list(zip(smaller, larger, strict=True))
    differences = [b - a for a, b in pairs[len(pairs) // 2 :]]
    half = half_width(differences)
    assert half is not None, "a comparison takes LEAST_CHUNKS pairs"
    return mean(differences), half


def is_no_worse(excess: float, half: float, tolerance: float) -> bool:
    """Tell whether the whole interval is below ``tolerance``; more noise makes this harder."""
    return excess + half <= tolerance
