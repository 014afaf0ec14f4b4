"""Choose device and precision of a run, and find the device's peak speed."""

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

from feldspar.core.accelerators import accelerator_of
from feldspar.core.errors import SetupError
from feldspar.core.machine import machine
from feldspar.core.progress import say
from feldspar.recipe.sections.runtime import CommonRuntime, RuntimeSettings

BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Processor flags (x86, ARM) of instructions that multiply bfloat16."""


@dataclass(frozen=True)
class PeakFlops:
    """Highest floating-point operations per second, and the source of the figure."""

    per_second: float
    source: Literal["data sheet", "measured"]


def choose_device(settings: CommonRuntime, local_rank: int = 0) -> torch.device:
    """Return the device of this process. Raises SetupError if CUDA is asked for and not
    available."""
    available = torch.cuda.is_available()
    if settings.device == "cuda" and not available:
        raise SetupError(
            "runtime.device is cuda, but torch finds no CUDA device",
            found=f"torch {torch.__version__}",
            do="set runtime.device=cpu, or install a torch built for CUDA and its driver",
        )
    if settings.device == "cpu" or not available:
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise SetupError(
            f"there is no CUDA device for local rank {local_rank}",
            found=f"{torch.cuda.device_count()} devices",
            do="start at most one process per device",
        )
    return torch.device("cuda", local_rank)


def choose_precision(settings: CommonRuntime, device: torch.device) -> torch.dtype:
    """Return the type of matrix products.

    On a CPU without instructions for bfloat16, it is 40 to 500 times slower than float32, so
    float32 is used with a warning.
    """
    if settings.precision == "float32":
        return torch.float32
    if device.type == "cuda":
        return torch.bfloat16
    if settings.precision == "bfloat16":
        if cpu_multiplies_bfloat16():
            return torch.bfloat16
        say(
            "warning: this CPU has no bfloat16 instructions, so float32 is used, which "
            "is far faster"
        )
    return torch.float32


def cpu_multiplies_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether Linux lists bfloat16 instructions; False if there is no such list."""
    if not cpuinfo.is_file():
        return False
    return bool(BFLOAT16_FLAGS & set(cpuinfo.read_text(encoding="utf-8", errors="replace").split()))


def gpu_names() -> list[str]:
    """Return the name of each GPU of this machine that torch sees."""
    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def hardware(device: torch.device, precision: torch.dtype) -> dict[str, Any]:
    """Return what a run computes with: this machine, its GPUs, device and precision in use."""
    return machine() | {
        "gpus": gpu_names(),
        "device": device.type,
        "precision": str(precision).removeprefix("torch."),
    }


def choose_compile(settings: RuntimeSettings, device: torch.device) -> bool:
    """Tell whether to compile the model."""
    return device.type == "cuda" if settings.compile == "auto" else settings.compile


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[object]:
    """Return the context of the forward pass."""
    if precision is torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=precision)


def peak_flops(device: torch.device, precision: torch.dtype, threads: int = 1) -> PeakFlops:
    """Return the device's peak: from its data sheet if known (bfloat16), else that of the fastest
    matmul.

    On a processor it is the peak of ``threads`` threads, each with its own core.
    """
    if device.type == "cuda":
        known = accelerator_of(torch.cuda.get_device_name(device))
        if known is not None and precision is torch.bfloat16:
            return PeakFlops(known.bfloat16_flops, "data sheet")
        return PeakFlops(fastest_matmul(device, precision, 8192), "measured")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return PeakFlops(threads * fastest_matmul(device, precision, 1024), "measured")
    finally:
        torch.set_num_threads(before)


def utilisation(flops: float, seconds: float, capacity: float) -> dict[str, float]:
    """Return the share of the peak that a step reached, for its record.

    A share above 1 shows that the measured peak was too low, so it is left out.
    """
    share = flops / seconds / capacity
    return {"model_flop_utilisation": share} if share <= 1 else {}


@cache  # an experiment trains hundreds of models
def fastest_matmul(
    device: torch.device, precision: torch.dtype, size: int, repeats: int = 6
) -> float:
    """Return the FLOPs per second of the fastest of several products, measured once.

    On a processor only its own time counts, so other jobs do not matter.
    """
    clock = time.perf_counter if device.type == "cuda" else time.thread_time
    left = torch.ones(size, size, device=device, dtype=precision)
    best = float("inf")
    for _ in range(repeats):
        _synchronize(device)
        start = clock()
        left @ left
        _synchronize(device)
        best = min(best, clock() - start)
    return 2 * size**3 / best


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
