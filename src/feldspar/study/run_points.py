"""Read finished runs as points of a law: FLOPs from the plan, loss from the last validation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from feldspar.core.errors import UserError
from feldspar.core.files import sha256_of_file
from feldspar.plan.laws.law import Basis, Point
from feldspar.plan.laws.law_basis import CONVENTION, METRIC, planned_flops, recipe_basis
from feldspar.recipe.load import load_recipe
from feldspar.runtime.checkpoint import Checkpoint
from feldspar.runtime.checkpoint_store import CheckpointStore
from feldspar.runtime.run_folder import RunFolder
from feldspar.tokens.tokenizer.text_tokenizer import TOKENIZER_FILE
from feldspar.train.data import plan_loaded
from feldspar.train.run_tokenizer import run_tokenizer


@dataclass(frozen=True)
class RunPoint:
    """A finished run: its cost, its loss, and the basis on which they are comparable."""

    folder: Path
    flops: float
    loss: float
    parameters: int
    tokens: int
    basis: Basis

    @property
    def point(self) -> Point:
        """FLOPs and loss."""
        return Point(self.flops, self.loss)


def read_runs(
    folders: Sequence[Path], *, convention: str = CONVENTION, metric: str = METRIC
) -> list[RunPoint]:
    """Return the points of run folders, all on one basis.

    ``convention`` is one of ``plan.flops``; ``metric`` is a figure of the last validation. Raises
    UserError for a folder without a finished run, and for runs of different data or tokenizers.
    """
    runs = [_read_run(folder, convention, metric) for folder in folders]
    for run in runs[1:]:
        if run.basis.tokenizer != runs[0].basis.tokenizer:
            raise _unlike(runs[0], run, "other tokenizers")
        if run.basis.data_set != runs[0].basis.data_set:
            raise _unlike(runs[0], run, "other shards, mixtures, held-out sources or contexts")
    return runs


def _read_run(folder: Path, convention: str, metric: str) -> RunPoint:
    records = RunFolder(folder).steps()
    if not records or not RunFolder(folder).holds_run:
        raise UserError(f"{folder} is not a run folder: it needs recipe.yaml and metrics.jsonl")
    checkpoint = _last_checkpoint(folder)
    loaded = load_recipe(str(folder))
    plan = plan_loaded(loaded)
    last, total = records[-1], plan.timeline.length
    if last["tokens"] < total:
        raise UserError(
            f"{folder} is not finished: {last['tokens']:,} of {total:,} tokens",
            do=f"feldspar train {folder} --out {folder}",
        )
    if metric not in last:
        measured = [name for name in last if name.startswith("validation/")]
        raise UserError(
            f"{folder} has no {metric} in its last validation", allowed=measured or "no validation"
        )
    return RunPoint(
        folder=folder,
        flops=planned_flops(plan, convention),
        loss=last[metric],
        parameters=plan.shapes.parameters,
        tokens=total,
        basis=recipe_basis(
            loaded.recipe,
            convention,
            metric,
            shards=checkpoint.state["shards"],
            tokenizer=sha256_of_file(run_tokenizer(folder, checkpoint) / TOKENIZER_FILE),
        ),
    )


def _last_checkpoint(folder: Path) -> Checkpoint:
    newest = CheckpointStore(RunFolder(folder).checkpoints).newest_valid()
    if newest is None:
        raise UserError(
            f"{folder} has no checkpoint, so the shards that it read are unknown",
            do="give the points as a CSV file with the columns flops, loss",
        )
    return newest


def _unlike(first: RunPoint, other: RunPoint, how: str) -> UserError:
    return UserError(
        f"{first.folder} and {other.folder} do not belong to one family: {how}",
        do="fit a law to runs with one data set and one tokenizer",
    )
