"""Several real processes over gloo agree, fail together and read each other's checkpoints."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from feldspar.core.errors import SetupError, UserError
from feldspar.recipe.sections.runtime import RuntimeSettings
from feldspar.runtime.checkpoint_store import CheckpointStore
from feldspar.runtime.distributed import Distribution
from tests.runtime.conftest import SCRIPTS

Torchrun = Callable[..., str]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_several_processes_need_torchrun(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    settings = RuntimeSettings.model_validate({"distribution": kind})
    with pytest.raises(SetupError, match="not started by torchrun") as caught:
        Distribution.start(settings)
    assert "torchrun --nproc-per-node" in str(caught.value)


def test_one_process_under_a_launcher_of_two_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    with pytest.raises(SetupError, match="torchrun started 2"):
        Distribution.start(RuntimeSettings.model_validate({"distribution": "single"}))


def test_without_a_launcher_there_is_one_process() -> None:
    distribution = Distribution.start(RuntimeSettings(device="cpu"))
    assert (distribution.kind, distribution.world_size, distribution.is_first) == (
        "single",
        1,
        True,
    )
    assert distribution.all_reduce_sum([1.5]) == [1.5]
    assert not distribution.any_process(False)


@pytest.mark.slow
@pytest.mark.several_cores
def test_processes_of_the_real_launcher_agree(tmp_path: Path) -> None:
    """Elsewhere processes are forked, as ``tests.processes`` says: here torch starts them."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, "--nproc-per-node=2", str(SCRIPTS / "together.py"), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert CheckpointStore(tmp_path / "split").newest_valid() is not None


def test_two_processes_agree_and_one_reads_what_they_wrote(
    tmp_path: Path, torchrun: Torchrun
) -> None:
    torchrun(2, "together.py", tmp_path)
    checkpoint = CheckpointStore(tmp_path / "split").newest_valid()
    assert checkpoint is not None
    names = sorted(path.name for path in checkpoint.folder.glob("model*"))
    assert names == ["model-rank00000.safetensors", "model-rank00001.safetensors"]
    torch.manual_seed(1)
    whole = nn.ModuleList([nn.Linear(3, 5), nn.Linear(5, 1)]).state_dict()
    stored = checkpoint.read_model()
    assert len(stored) == len(whole)
    assert all(torch.equal(stored[f"blocks.{name}"], tensor) for name, tensor in whole.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("written_by", "write", "read_by", "read"),
    [
        (2, "fsdp", 1, "fsdp"),
        (1, "fsdp", 2, "fsdp"),
        (2, "fsdp", 3, "fsdp"),
        (3, "fsdp", 2, "ddp"),
        (2, "ddp", 2, "fsdp"),
        (4, "hybrid", 2, "fsdp"),
        (2, "fsdp", 4, "hybrid"),
    ],
)
def test_any_number_of_processes_reads_what_any_other_wrote(
    tmp_path: Path, torchrun: Torchrun, written_by: int, write: str, read_by: int, read: str
) -> None:
    torchrun(written_by, "reshard.py", "save", tmp_path, write, 10)
    torchrun(read_by, "reshard.py", "load", tmp_path, read, 10)


@pytest.mark.slow
def test_shards_must_divide_the_processes(tmp_path: Path, torchrun: Torchrun) -> None:
    output = torchrun(3, "reshard.py", "save", tmp_path, "hybrid", 10, code=1)
    assert UserError.__name__ in output and "must divide" in output
