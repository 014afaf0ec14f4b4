"""Collectives, guards and errors in several real processes; asserts in each of them: FOLDER."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from feldspar.core.errors import RunError, SetupError
from feldspar.core.records import read_records
from feldspar.recipe.sections.runtime import RuntimeSettings, SkipNonFinite
from feldspar.runtime.checkpoint_store import CheckpointStore
from feldspar.runtime.collectives import gather_json, on_each, on_first
from feldspar.runtime.distributed import Distribution, accumulate
from feldspar.runtime.guards import NonFinitePolicy, all_finite
from feldspar.runtime.metrics import MetricsWriter
from feldspar.runtime.run_folder import RunFolder
from feldspar.runtime.signals import GracefulStop

torch.set_num_threads(1)
path = Path(sys.argv[1])


def check(distribution: Distribution) -> None:
    rank, size = distribution.rank, distribution.world_size
    assert distribution.kind == "ddp" and size == 2

    assert distribution.all_reduce_sum([0.1, float(rank)]) == [0.2, 1.0]
    assert gather_json({"rank": rank, "text": "\u00e9" * rank * 100})[1]["text"] == "\u00e9" * 100
    assert on_first(lambda: [1, "two"]) == [1, "two"]

    nan = float("nan")
    assert all_finite(torch.tensor(1.0), torch.tensor(2.0))
    assert not all_finite(torch.tensor(nan if rank == 1 else 1.0), 2.0)
    assert not all_finite(1.0, torch.tensor(float("inf") if rank == 0 else 1.0))

    folder = RunFolder(path)
    policy = NonFinitePolicy(SkipNonFinite(up_to=1), folder)
    policy.refuse(3, 30, [f"batch-{rank}"], nan, 1.0)
    try:
        policy.refuse(4, 40, [f"other-{rank}"], nan, 1.0)
        raise AssertionError("the second one should have ended the run")
    except RunError:
        pass
    distribution.barrier()
    records = list(read_records(folder.bad_batches))
    assert [record["batch"] for record in records] == [
        ["batch-0", "batch-1"],
        ["other-0", "other-1"],
    ]

    def fails_on_one() -> None:
        if rank == 1:
            raise SetupError("no space left on the disk of rank 1")

    try:
        on_each(fails_on_one)
        raise AssertionError("an error on one process must reach all")
    except SetupError as error:
        assert "no space left on the disk of rank 1" in error.what

    store = CheckpointStore(path / "checkpoints")
    good = store.save(10, {"w": torch.ones(2)}, {}, {})
    try:
        store.save(20, {"w": torch.ones(2)}, {}, {"wrong": object()} if rank == 0 else {})
        raise AssertionError("rank 0 cannot write that state")
    except (TypeError, RunError):
        pass
    checkpoint = store.newest_valid()
    assert checkpoint is not None and checkpoint.folder == good

    metrics = MetricsWriter(folder)
    metrics.write(1, 10, {"train/loss": 1.0})
    metrics.close()
    distribution.barrier()
    assert len(list(folder.steps())) == 1

    with GracefulStop() as stop:
        assert not stop.requested_anywhere()
        if rank == 1:
            os.kill(os.getpid(), 2)
        assert stop.requested_anywhere()
        assert stop.requested == (rank == 1) and stop.exit_code == 130

    torch.manual_seed(0)
    inner = nn.Linear(3, 1)
    model = distribution.wrap(inner)
    data = torch.arange(24.0).view(2, 4, 3)
    for micro in (0, 1):
        with accumulate(model, last=micro == 1):
            model(data[rank, 2 * micro : 2 * micro + 2]).square().sum().backward()
    alone = nn.Linear(3, 1)
    alone.load_state_dict(inner.state_dict())
    alone(data.view(8, 3)).square().sum().backward()
    assert inner.weight.grad is not None and alone.weight.grad is not None
    torch.testing.assert_close(inner.weight.grad * size, alone.weight.grad)

    split = nn.Module()
    torch.manual_seed(1)
    split.blocks = nn.ModuleList([nn.Linear(3, 5), nn.Linear(5, 1)])
    replace(distribution, kind="fsdp", shards=size).wrap(split)
    CheckpointStore(path / "split").save(10, split.state_dict(), {}, {"step": 1})


with Distribution.start(RuntimeSettings(device="cpu")) as distribution:
    check(distribution)
