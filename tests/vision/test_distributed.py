"""Two real gloo processes against one: the same losses, weights, pairs of images and measures."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.train.conftest import Command, losses_of

PLAIN = ["model.dropout=0", "model.stochastic_depth=0"]
"""Each process draws its own dropout, so runs with dropout cannot agree."""


def torchrun(recipe: Path, out: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command = ["feldspar", "vision", "train", str(recipe), *overrides, "--out", str(out)]
    return subprocess.run(
        [sys.executable, "-m", *launcher, *command],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def tensors_of(run: Path) -> dict[str, torch.Tensor]:
    newest = max((run / "checkpoints").iterdir())
    return {
        k: v for path in sorted(newest.glob("*.safetensors")) for k, v in load_file(path).items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["store", "reversible"])
def test_two_processes_train_as_one(
    recipe_file: Path, tmp_path: Path, feldspar: Command, memory: str
) -> None:
    """With mixing in both ways, batch norm, the average, and a change of resolution."""
    changes = [
        *PLAIN,
        "augmentation.cutmix=1",
        "phases.1.length=6 steps",
        f"runtime.activation_memory={memory}",
    ]
    one = feldspar("vision", "train", recipe_file, *changes, "--out", tmp_path / "one")
    assert one.returncode == 0, one.stderr
    result = torchrun(recipe_file, tmp_path / "two", *changes)
    assert result.returncode == 0, result.stderr
    assert len(losses_of(tmp_path / "two")) == 12
    assert losses_of(tmp_path / "two") == pytest.approx(losses_of(tmp_path / "one"), rel=1e-5)
