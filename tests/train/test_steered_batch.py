"""A batch that follows the noise scale in a real run: exact tokens, same documents, same resume."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from feldspar.core.errors import RunError, UserError
from feldspar.recipe import load_recipe
from feldspar.train import train
from feldspar.train.steering import StepTimes, require_agreement
from tests.train.conftest import metrics_of

BATCH = "{type: noise_scale, minimum: 2 sequences, maximum: 24 sequences, gain: 2}"
STEERED = (
    "noise_scale={coverage: all, half_life: 256 tokens}",
    f"phases.0.batch={BATCH}",
    "phases.0.length=8000 tokens",
    "phases.1.length=2 steps",
    "evaluation.every=100% of run",
    "checkpoints.every=10% of run",
    "checkpoints.keep.last=20",
)
TIMED = ("tokens_per_second", "model_flop_utilisation")


def run(recipe: Path, out: Path, *overrides: str) -> list[dict[str, Any]]:
    train(load_recipe(str(recipe), [*STEERED, *overrides]), out)
    return untimed(out)


def untimed(out: Path) -> list[dict[str, Any]]:
    """The records of a run, without what a clock measured."""
    return [
        {key: value for key, value in row.items() if key not in TIMED} for row in metrics_of(out)
    ]


def test_the_batch_follows_within_its_bounds_and_the_tokens_are_exact(
    recipe_file: Path, tmp_path: Path
) -> None:
    records = run(recipe_file, tmp_path / "run")
    steered = [record for record in records if record["phase"] == "short"]
    batches = [record["sequences"] for record in steered]
    assert batches[0] == 2 and batches[-2] > 2
    assert all(batch % 2 == 0 and batch <= 24 for batch in batches)
    # 8000 tokens in whole quanta of 2 sequences of 16 tokens.
    assert steered[-1]["tokens"] == 8000 == 16 * sum(batches)
    decided = [record for record in steered if "batch/action" in record]
    assert {record["batch/action"] for record in decided} >= {"raise", "hold"}
    by_place = {record["tokens"]: record["batch/sequences"] for record in decided}
    for before, after in zip(steered, steered[1:-1], strict=False):
        assert after["sequences"] == by_place.get(before["tokens"], before["sequences"])


def test_resumed_anywhere_it_takes_the_same_decisions(recipe_file: Path, tmp_path: Path) -> None:
    whole = run(recipe_file, tmp_path / "whole")
    for keep in (2, 5, 8):
        out = tmp_path / f"part-{keep}"
        shutil.copytree(tmp_path / "whole", out)
        folders = sorted((out / "checkpoints").iterdir(), key=lambda folder: int(folder.name))
        for folder in folders[keep:]:
            shutil.rmtree(folder)
        assert run(recipe_file, out) == whole
