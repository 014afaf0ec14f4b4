"""Processes of a run: start them under torchrun, and copy or split the model."""

import gc
import os
import traceback
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Literal, Self

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from feldspar.core.errors import SetupError, UserError
from feldspar.recipe.sections.runtime import FsdpDistribution, RuntimeSettings
from feldspar.recipe.sections.vision import VisionRuntimeSettings
from feldspar.runtime import collectives
from feldspar.runtime.device import choose_device

Kind = Literal["single", "ddp", "fsdp"]
TIMEOUT = timedelta(minutes=30)
"""Longest time that a process waits for the others; writing a checkpoint may take long."""


@dataclass(frozen=True)
class Distribution:
    """This process among those of the run."""

    kind: Kind
    device: torch.device
    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    backend: str | None = None
    shards: int = 1

    @classmethod
    def start(cls, settings: RuntimeSettings | VisionRuntimeSettings) -> "Distribution":
        """Join the processes that torchrun started, or run alone.

        Raises SetupError if the settings ask for several processes and torchrun did not start them,
        or the reverse.
        """
        kind = _kind(settings)
        if kind == "single":
            return cls(kind, choose_device(settings))
        local_rank = int(os.environ["LOCAL_RANK"])
        device = choose_device(settings, local_rank)
        backend = "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(device)
            backend = "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, timeout=TIMEOUT)
        world_size = dist.get_world_size()
        shards = world_size if kind == "fsdp" else 1
        if isinstance(settings.distribution, FsdpDistribution):
            shards = settings.distribution.shards or world_size
            if world_size % shards:
                raise UserError(
                    "runtime.distribution.shards must divide the number of processes",
                    found=f"{shards} shards, {world_size} processes",
                    allowed=(str(n) for n in range(1, world_size + 1) if world_size % n == 0),
                )
        return cls(kind, device, dist.get_rank(), local_rank, world_size, backend, shards)

    @property
    def is_first(self) -> bool:
        """True if this process writes what only one process writes."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all processes."""
        collectives.barrier()

    def all_reduce_sum(self, values: list[float]) -> list[float]:
        """Return the sums over all processes, in float64, in one message."""
        return collectives.all_reduce_sum(values)

    def any_process(self, flag: bool) -> bool:
        """Tell whether ``flag`` is set on any process."""
        return collectives.any_process(flag)

    def wrap(self, model: nn.Module, precision: torch.dtype = torch.float32) -> nn.Module:
        """Return the model for the run's processes; call it again when ``requires_grad`` changes.

        ddp: gradients are averaged as they appear. fsdp: each of ``model.blocks`` and the rest are
        split by rows (FSDP2, in place); with bfloat16 the products use it and gradients are summed
        in float32.
        """
        if self.kind == "ddp":
            return DistributedDataParallel(
                model,
                device_ids=[self.local_rank] if self.device.type == "cuda" else None,
                gradient_as_bucket_view=True,
            )
        if self.kind == "fsdp":
            self._shard(model, precision)
        return model

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the other processes.

        A model that outlives the process group would end the group's threads while it holds the
        interpreter's lock. These threads may wait for the lock, and the process would hang. So all
        objects that the block made are deleted first, also those that an error's frames still hold.
        """
        if not dist.is_initialized():
            return
        while error is not None:
            traceback.clear_frames(error.__traceback__)
            error = error.__cause__ or error.__context__
        gc.collect()
        dist.destroy_process_group()

    def _shard(self, model: nn.Module, precision: torch.dtype) -> None:
        if isinstance(model, FSDPModule):
            return
        replicas = self.world_size // self.shards
        if replicas > 1:
            shape, names = (replicas, self.shards), ("replicate", "shard")
        else:
            shape, names = (self.shards,), ("shard",)
        mesh = init_device_mesh(self.device.type, shape, mesh_dim_names=names)
        policy = MixedPrecisionPolicy()
        if precision is torch.bfloat16:
            policy = MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=torch.float32)
        blocks = getattr(model, "blocks", None)
        if not isinstance(blocks, nn.ModuleList):
            raise UserError(
                "fsdp splits a model by its list `blocks`, which this model does not have"
            )
        for block in blocks:
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(model, mesh=mesh, mp_policy=policy)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model itself, without the wrappers of copying and compiling."""
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif isinstance(compiled := getattr(model, "_orig_mod", None), nn.Module):
            model = compiled
        else:
            return model


def accumulate(model: nn.Module, last: bool) -> AbstractContextManager[object]:
    """Wrap forward and backward of each micro-batch; gradients are exchanged only at the
    last one."""
    if isinstance(model, DistributedDataParallel):
        return nullcontext() if last else model.no_sync()
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
    return nullcontext()


def split_again(model: nn.Module) -> None:
    """Split again the parameters that a forward pass without a backward pass left whole (FSDP2).

    This concerns the outermost group. Until then the model's parameters are not those of the
    optimizer.
    """
    if isinstance(model, FSDPModule):
        model.reshard()


def under_torchrun() -> bool:
    """Tell whether a launcher started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"))


def _kind(settings: RuntimeSettings | VisionRuntimeSettings) -> Kind:
    wanted = settings.distribution.type
    if wanted == "auto":
        return "ddp" if under_torchrun() else "single"
    if wanted == "single":
        if under_torchrun() and int(os.environ["WORLD_SIZE"]) > 1:
            raise SetupError(
                "runtime.distribution is single, but torchrun started "
                f"{os.environ['WORLD_SIZE']} processes",
                do="start it without torchrun, or set runtime.distribution=ddp",
            )
        return "single"
    if not under_torchrun():
        start = (
            f"torchrun --nproc-per-node 2 -m feldspar train RECIPE runtime.distribution={wanted}"
        )
        if isinstance(settings, VisionRuntimeSettings):
            start = "put this before the same command: torchrun --nproc-per-node 2 -m"
        raise SetupError(
            f"runtime.distribution is {wanted}, but this process was not started by torchrun",
            where="environment: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR",
            do=start,
        )
    return wanted
