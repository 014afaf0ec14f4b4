"""Branches of a run: the same tokens, larger batches, losses compared pair by pair."""

import json
from pathlib import Path

import pytest

from feldspar.cli.main import run_with
from feldspar.core.errors import UserError
from feldspar.recipe.load import load_recipe
from feldspar.study.branch_test import branch_test, is_no_worse, paired_excess
from feldspar.train.run import train
from tests.train.conftest import metrics_of, recipe_file, shards_folder

__all__ = ["recipe_file", "shards_folder"]


def train_pilot(recipe: Path, out: Path, *overrides: str) -> Path:
    given = ["phases.1.length=4 steps", "noise_scale={half_life: 1000 tokens}"]
    given += ["checkpoints.keep.last=20", *overrides]
    train(load_recipe(str(recipe), given), out)
    return out


@pytest.fixture
def pilot(recipe_file: Path, tmp_path: Path) -> Path:
    return train_pilot(recipe_file, tmp_path / "pilot")


def test_branches_go_on_from_the_checkpoint_with_more_sequences(
    pilot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "branches"
    command = ["noise-scale", "branch", str(pilot), "--tokens", "4100", "--out", str(out)]
    command += ["--checkpoint", "1536", "--json"]
    assert run_with(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tokens"] == 1536
    assert [branch["sequences"] for branch in found["branches"]] == [8, 16, 32]
    assert found["branches"][0]["passed"] and found["accepted"] in (8, 16, 32)
    whole = {row["tokens"]: row for row in metrics_of(pilot)}
    for factor in (1, 2, 4):
        records = metrics_of(out / f"batch-x{factor}")
        rows = [row for row in records if row["tokens"] > 1536]
        assert records[: -len(rows)] == [whole[tokens] for tokens in whole if tokens <= 1536]
        assert [row["sequences"] for row in rows] == [8 * factor] * (32 // factor)
        assert (rows[0]["tokens"], rows[-1]["tokens"]) == (1536 + 128 * factor, 1536 + 4096)
        rate = whole[1536]["learning_rate"] * factor**0.5
        assert rows[0]["learning_rate"] == pytest.approx(rate)
    assert run_with(command) == 0
    assert json.loads(capsys.readouterr().out) == found


def test_branches_that_are_too_short_are_refused(pilot: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too short to compare"):
        branch_test(pilot, 1000, tmp_path / "branches")
    assert not (tmp_path / "branches").exists()


def test_all_branches_read_the_same_tokens(recipe_file: Path, tmp_path: Path) -> None:
    still = train_pilot(recipe_file, tmp_path / "still", "parametrization.learning_rate=1e-12")
    found = branch_test(still, 4096, tmp_path / "branches", checkpoint="1536")
    # Weights that do not move have one loss on the same tokens, whatever the steps.
    assert [branch.excess for branch in found.branches] == pytest.approx([0, 0, 0], abs=1e-5)
    losses = [row["train/loss"] for row in metrics_of(found.branches[0].folder)]
    assert max(losses) - min(losses) > 1e-3
    assert found.accepted == 32


def test_a_noisier_branch_does_not_pass_more_easily() -> None:
    """The same mean difference of 0.005 nats, more and more scattered."""
    passed = []
    for noise in (0.0, 0.001, 0.01, 0.1):
        larger = [1.0] * 4 + [1.005 + noise, 1.005 - noise, 1.005 + noise, 1.005 - noise]
        excess, half = paired_excess([1.0] * 8, larger)
        assert excess == pytest.approx(0.005)
        passed.append(is_no_worse(excess, half, tolerance=0.01))
    assert passed == [True, True, False, False]
