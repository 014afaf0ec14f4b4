"""Masks in real processes: killed and resumed, copied by DDP, split by FSDP2."""

import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from feldspar.recipe.load import load_recipe
from feldspar.runtime.checkpoint_store import CheckpointStore
from feldspar.runtime.shards import TensorFiles
from feldspar.sparsity.kernels.compiled import compiled
from feldspar.sparsity.saved import digest_of_masks
from feldspar.train.load import load_run
from feldspar.train.run import train
from tests.processes import run_together
from tests.train.conftest import Command, losses_of
from tests.train.test_distributed import torchrun
from tests.train.test_resume import start, wait_for_steps

DENSE_LATER = ("phases.1.sparsity=dense", "phases.1.optimizer_state=fresh")


@pytest.fixture
def sparse_file(recipe_file: Path) -> Path:
    """The tiny recipe with masks, as a file."""
    text = recipe_file.read_text()
    text = text.replace("type: mup", "type: supar")
    text = text.replace(
        "length: 24 steps", "length: 24 steps, sparsity: {type: static, sparsity: 0.75}"
    )
    path = recipe_file.with_name("sparse.yaml")
    path.write_text(text)
    return path


@pytest.mark.slow
def test_killed_and_resumed_bit_for_bit(
    sparse_file: Path, tmp_path: Path, feldspar: Command
) -> None:
    assert feldspar("train", sparse_file, "--out", tmp_path / "whole").returncode == 0
    out = tmp_path / "killed"
    chance = random.Random(7)
    kills = 0
    for steps in (3, 13, 22, 30):
        process = start(sparse_file, out)
        wait_for_steps(process, out, steps)
        time.sleep(chance.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    result = feldspar("train", sparse_file, "--out", out)
    assert result.returncode == 0, result.stderr
    assert kills >= 2
    assert losses_of(out) == losses_of(tmp_path / "whole")
    whole, killed = load_run(tmp_path / "whole"), load_run(out)
    assert digest_of_masks(whole.masks) == digest_of_masks(killed.masks)
    for mine, theirs in zip(killed.decoder.parameters(), whole.decoder.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_keep_the_masks_of_one(
    sparse_file: Path, tmp_path: Path, feldspar: Command, kind: str
) -> None:
    one, two = tmp_path / "one", tmp_path / kind
    options = [*DENSE_LATER, "checkpoints.keep.last=20", "runtime.masked_products=sparse"]
    done = feldspar("train", sparse_file, *options, "--out", one)
    assert done.returncode == 0, done.stderr
    for start_over in (False, True):
        if start_over:  # again from the middle of the sparse phase
            for checkpoint in CheckpointStore(two / "checkpoints").all():
                if checkpoint.position > 12 * 128:
                    shutil.rmtree(checkpoint.folder)
        result = torchrun(sparse_file, two, *options, f"runtime.distribution={kind}")
        assert result.returncode == 0, result.stderr
        assert losses_of(two) == pytest.approx(losses_of(one), rel=1e-5)
    expected = load_run(one, str(24 * 128)).masks
    found = load_run(two, str(24 * 128))
    assert digest_of_masks(found.masks) == digest_of_masks(expected)
    if compiled() is not None:
        assert found.checkpoint.state["sparse_products"]["matrices"] == sorted(expected.tensors)
    folder = found.checkpoint.folder
    optimizer = TensorFiles(sorted(folder.glob("optimizer*.safetensors")))
    assert len(list(folder.glob("optimizer*.safetensors"))) == (2 if kind == "fsdp" else 1)
    weights = dict(found.decoder.named_parameters())
    for name, mask in expected.tensors.items():
        kept = int(mask.sum())
        for tensor in (
            weights[name],
            optimizer[f"exp_avg/{name}"],
            optimizer[f"exp_avg_sq/{name}"],
        ):
            assert not tensor[~mask].any()
            assert int(torch.count_nonzero(tensor)) > 0.99 * kept
    revived = dict(load_run(two).decoder.named_parameters())
    assert all(revived[name][~mask].any() for name, mask in expected.tensors.items())
    # One process goes on with what two have written.
    for checkpoint in CheckpointStore(two / "checkpoints").all():
        if checkpoint.position > 20 * 128:
            shutil.rmtree(checkpoint.folder)
    alone = feldspar("train", sparse_file, *options, "--out", two)
    assert alone.returncode == 0, alone.stderr
    assert losses_of(two) == pytest.approx(losses_of(one), rel=1e-5)


@pytest.mark.slow
def test_processes_with_different_masks_do_not_begin() -> None:
    script = Path(__file__).parent / "scripts" / "different_masks.py"
    result = run_together(2, [script])
    assert result.returncode == 0, result.stderr
    for rank in (0, 1):
        assert f"rank {rank}: the processes have drawn different masks" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "moving"), [("ddp", "set"), ("fsdp", "rigl")])
def test_two_processes_move_the_masks_of_one(
    recipe_file: Path, tmp_path: Path, kind: str, moving: str
) -> None:
    keys = "sparsity: 0.75, every: 5 steps, block: [2, 1]"
    options = (f"phases.0.sparsity={{type: {moving}, {keys}}}", "checkpoints.keep.last=20")
    one, two = tmp_path / "one", tmp_path / "two"
    loaded = load_recipe(str(recipe_file), options)
    train(loaded, one)
    for start_over in (False, True):
        if start_over:  # again from a step between two moves
            for checkpoint in CheckpointStore(two / "checkpoints").all():
                if checkpoint.position > 8 * 128:
                    shutil.rmtree(checkpoint.folder)
        result = torchrun(recipe_file, two, *options, f"runtime.distribution={kind}")
        assert result.returncode == 0, result.stderr
        assert losses_of(two) == pytest.approx(losses_of(one), rel=1e-5)
    # Loading compares the weights of both processes with the masks of the first.
    for position in (8 * 128, 24 * 128):
        expected, found = (load_run(out, str(position)).masks for out in (one, two))
        assert digest_of_masks(found) == digest_of_masks(expected)
        assert found.ever.keys() == found.tensors.keys()
        for name, mask in expected.ever.items():
            assert torch.equal(found.ever[name], mask)
    # One process goes on with what two have written.
    for checkpoint in CheckpointStore(two / "checkpoints").all():
        if checkpoint.position > 12 * 128:
            shutil.rmtree(checkpoint.folder)
    train(loaded, two)
    assert losses_of(two) == pytest.approx(losses_of(one), rel=1e-5)
    assert digest_of_masks(load_run(two).masks) == digest_of_masks(load_run(one).masks)
