"""Two real gloo processes against one: the same loss, the same documents."""

import subprocess
from pathlib import Path

import pytest

from tests.processes import run_together
from tests.train.conftest import Command, losses_of


def torchrun(recipe: Path, out: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return run_together(2, ["feldspar", "train", recipe, *overrides, "--out", out])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_reach_the_loss_of_one(
    recipe_file: Path, tmp_path: Path, feldspar: Command, kind: str
) -> None:
    changes = ["phases.0.length=30 steps", "phases.1.length=20 steps"]
    changes += [f"parametrization.{name}_multiplier=3" for name in ("embedding", "output")]
    one = feldspar("train", recipe_file, *changes, "--out", tmp_path / "one")
    assert one.returncode == 0, one.stderr
    distribution = f"runtime.distribution={kind}"
    result = torchrun(recipe_file, tmp_path / kind, *changes, distribution)
    assert result.returncode == 0, result.stderr
    assert len(losses_of(tmp_path / kind)) == 50
    assert losses_of(tmp_path / kind) == pytest.approx(losses_of(tmp_path / "one"), rel=1e-5)


@pytest.mark.slow
def test_a_run_of_two_processes_continues_on_one(
    recipe_file: Path, tmp_path: Path, feldspar: Command
) -> None:
    assert feldspar("train", recipe_file, "--out", tmp_path / "one").returncode == 0
    out = tmp_path / "moved"
    result = torchrun(recipe_file, out, "phases.1.length=4 steps", "runtime.distribution=fsdp")
    assert result.returncode == 0, result.stderr
    constant = feldspar("train", recipe_file, "--out", out)
    assert constant.returncode == 0, constant.stderr
    assert "another number of processes" in constant.stderr
    # The schedule of the short run decayed faster, so only its own part can agree.
    assert len(losses_of(out)) == 36


def test_a_batch_that_does_not_divide_is_refused(recipe_file: Path, tmp_path: Path) -> None:
    result = torchrun(recipe_file, tmp_path / "run", "phases.0.batch.sequences=9")
    assert result.returncode != 0
    assert "phases.0.batch: 9 sequences do not divide among 2 processes" in result.stderr
