"""Checkpoints: what goes in comes out, whatever is damaged is named, nothing is half-written."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from feldspar.core.errors import RunError, SetupError
from feldspar.runtime.checkpoint import Checkpoint
from feldspar.runtime.checkpoint_store import CheckpointStore

Start = Callable[..., subprocess.Popen[str]]


def model(value: float = 0.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 4, generator=generator) + value
    return {
        "embedding.weight": weight,
        "output.weight": weight,
        "blocks.0.weight": torch.randn(4, 4, generator=generator).T + value,
        "blocks.0.gain": torch.full((4,), value, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(value),
    }


def optimizer(value: float = 0.0) -> dict[str, torch.Tensor]:
    return {"exp_avg/blocks.0.weight": torch.full((4, 4), value), "step/x": torch.tensor(value)}


def save(store: CheckpointStore, tokens: int, **state: object) -> Path:
    return store.save(
        tokens, model(float(tokens)), optimizer(float(tokens)), {"step": tokens // 10, **state}
    )


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_everything_comes_back_bit_for_bit(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    streams = {"rng/cpu": torch.get_rng_state()}
    loss = 0.1 + 0.2
    folder = save(store, 1000, tensors=streams, metrics={"validation/loss": loss}, phase="one")
    assert folder.name == "000000000001000"
    checkpoint = store.newest_valid()
    assert checkpoint == Checkpoint(folder) and checkpoint.position == 1000
    filled = {name: torch.full_like(tensor, 7) for name, tensor in model().items()}
    moments = {name: torch.full_like(tensor, 7) for name, tensor in optimizer().items()}
    state = store.load(checkpoint, filled, moments)
    for name, tensor in model(1000.0).items():
        assert torch.equal(filled[name], tensor), name
        assert torch.equal(checkpoint.read_model()[name], tensor), name
    assert all(torch.equal(moments[name], tensor) for name, tensor in optimizer(1000.0).items())
    assert torch.equal(state.pop("tensors")["rng/cpu"], streams["rng/cpu"])
    assert state == {"step": 100, "metrics": {"validation/loss": loss}, "phase": "one"}


def test_no_file_is_pickled_and_the_model_is_plain_safetensors(tmp_path: Path) -> None:
    folder = save(CheckpointStore(tmp_path), 10)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]
    stored = load_file(folder / "model.safetensors")
    assert torch.equal(stored["blocks.0.weight"], model(10.0)["blocks.0.weight"])
    assert "output.weight" not in stored, "tied tensors are stored once"


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]
)
@pytest.mark.parametrize("how", ["flip", "truncate", "delete"])
def test_a_damaged_checkpoint_is_named_and_the_previous_used(
    tmp_path: Path, news: Any, name: str, how: str
) -> None:
    store = CheckpointStore(tmp_path)
    good = save(store, 10)
    path = save(store, 20) / name
    if how == "flip":
        damage(path)
    elif how == "truncate":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        path.unlink()
    checkpoint = store.newest_valid()
    assert checkpoint is not None and checkpoint.folder == good
    assert any(str(path.parent) in line for line in news.lines)
    if name != "manifest.json" or how == "delete":
        assert any(name in line for line in news.lines)
    assert any(str(good) in line for line in news.lines)


def test_damage_everywhere_stops_the_run(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    assert store.newest_valid() is None
    for tokens in (10, 20):
        damage(save(store, tokens) / "model.safetensors")
    with pytest.raises(RunError, match="all 2 checkpoints"):
        store.newest_valid()


def test_a_damaged_one_is_replaced_and_never_counted(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for tokens in (10, 20, 30):
        save(store, tokens)
    damage(tmp_path / "000000000000030" / "model.safetensors")
    assert store.newest_valid() is not None
    save(store, 25)
    store.prune()
    assert [checkpoint.position for checkpoint in store.all()] == [20, 25]
    save(store, 30)
    store.prune()
    assert [checkpoint.position for checkpoint in store.all()] == [25, 30]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda like: like.pop("scalar"), "does not fit"),
        (lambda like: like.update(more=torch.zeros(1)), "does not fit"),
        (lambda like: like.update(scalar=torch.zeros(2)), "another shape"),
        (lambda like: like.update(scalar=torch.tensor(1)), "another type"),
    ],
)
def test_another_model_is_refused(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object], words: str
) -> None:
    store = CheckpointStore(tmp_path)
    like = model()
    change(like)
    with pytest.raises(RunError, match=words):
        store.load(Checkpoint(save(store, 10)), like, None)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("large", ["model", "state"])
def test_a_full_disk_keeps_the_previous_checkpoint(small_disk: Path, large: str) -> None:
    store = CheckpointStore(small_disk / "checkpoints")
    good = save(store, 10)
    tensors = {"w": torch.zeros(1 << 19)} if large == "model" else model()
    state = {"text": "x" * (1 << 21)} if large == "state" else {}
    with pytest.raises(SetupError, match="no space left"):
        store.save(20, tensors, optimizer(), state)
    assert [entry.name for entry in store.folder.iterdir()] == [good.name]
    checkpoint = store.newest_valid()
    assert checkpoint is not None and checkpoint.folder == good


def test_a_process_killed_while_saving_leaves_only_whole_checkpoints(
    tmp_path: Path, start: Start
) -> None:
    process = start("kill_while_saving.py", tmp_path / "checkpoints", 20)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "20 killed" in output and " 0 of them" not in output


def test_state_that_is_not_json_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    with pytest.raises(TypeError):
        save(store, 10, wrong=object())
    assert list(tmp_path.iterdir()) == []
    assert json.loads((save(store, 10) / "state.json").read_text())["step"] == 1
