"""Two real gloo processes against one: the same losses, weights, statistics and measures."""

import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from feldspar.vision.batch_norm import BatchNorm
from tests.processes import run_together
from tests.train.conftest import Command, losses_of, metrics_of

PLAIN = ["model.dropout=0", "model.stochastic_depth=0", "augmentation.cutmix=1"]
"""Without dropout, of which each process draws its own; and with mixing in both ways."""
SCRIPTS = Path(__file__).parent / "scripts"


def train(recipe: Path, out: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return run_together(2, ["feldspar", "vision", "train", recipe, *overrides, "--out", out])


def tensors_of(run: Path) -> dict[str, torch.Tensor]:
    newest = max((run / "checkpoints").iterdir())
    files = [load_file(path) for path in sorted(newest.glob("*.safetensors"))]
    return {name: tensor for file in files for name, tensor in file.items()}


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["store", "reversible"])
def test_two_processes_train_as_one(
    recipe_file: Path, tmp_path: Path, feldspar: Command, memory: str
) -> None:
    """With batch norm, the average of the weights, and a change of resolution."""
    changes = [*PLAIN, "phases.1.length=6 steps", f"runtime.activation_memory={memory}"]
    one = feldspar("vision", "train", recipe_file, *changes, "--out", tmp_path / "one")
    assert one.returncode == 0, one.stderr
    result = train(recipe_file, tmp_path / "two", *changes)
    assert result.returncode == 0, result.stderr
    expected, found = (metrics_of(tmp_path / name) for name in ("one", "two"))
    assert len(found) == 12
    for key in ("train/loss", "gradient_norm", "validation/loss"):
        assert [step[key] for step in found if key in step] == pytest.approx(
            [step[key] for step in expected if key in step], rel=1e-5
        )
    weights, of_two = tensors_of(tmp_path / "one"), tensors_of(tmp_path / "two")
    assert any("running_var" in name for name in weights)
    torch.testing.assert_close(of_two, weights, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_run_of_one_process_continues_on_two(
    recipe_file: Path, tmp_path: Path, feldspar: Command
) -> None:
    out = tmp_path / "moved"
    constant = [*PLAIN, "schedule={}", "checkpoints.every=3 steps", "phases.1.length=3 steps"]
    short = [*constant[:-1], "phases.0.length=6 steps", "phases.1.length=1 steps"]
    assert feldspar("vision", "train", recipe_file, *short, "--out", out).returncode == 0
    moved = train(recipe_file, out, *constant)
    assert moved.returncode == 0, moved.stderr
    one = feldspar("vision", "train", recipe_file, *constant, "--out", tmp_path / "one")
    assert one.returncode == 0, one.stderr
    assert losses_of(out) == pytest.approx(losses_of(tmp_path / "one"), rel=1e-5)


@pytest.mark.slow
def test_a_batch_that_does_not_divide_is_refused(recipe_file: Path, tmp_path: Path) -> None:
    result = train(recipe_file, tmp_path / "run", "phases.0.batch.images=9")
    assert result.returncode != 0
    assert "phases.0.batch: 9 images do not divide among 2 processes" in result.stderr


@pytest.mark.slow
def test_statistics_of_two_processes_are_those_of_one_batch() -> None:
    """Output, gradients and running statistics, also where the forward pass is repeated."""
    result = run_together(2, [SCRIPTS / "synchronised_norms.py"])
    assert result.returncode == 0, result.stderr


def test_alone_it_is_torchs_batch_norm_bit_for_bit() -> None:
    images = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(2))
    ours, torchs = BatchNorm(3), nn.BatchNorm2d(3)
    for _ in range(2):
        assert torch.equal(ours(images), torchs(images))
    for name, value in torchs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)
