"""Device, precision and memory: what is asked for, or a clear word about why not."""

import itertools
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from feldspar.core.errors import SetupError
from feldspar.recipe.sections.runtime import RuntimeSettings
from feldspar.runtime.device import (
    autocast,
    choose_compile,
    choose_device,
    choose_precision,
    cpu_multiplies_bfloat16,
    fastest_matmul,
    peak_flops,
    utilisation,
)
from feldspar.runtime.threads import set_threads

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_that_is_not_there_is_refused() -> None:
    with pytest.raises(SetupError, match="no CUDA device"):
        choose_device(RuntimeSettings(device="cuda"))
    assert choose_device(RuntimeSettings()) == CPU


def test_precision_follows_the_device(news: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_precision(RuntimeSettings(), CPU) is torch.float32
    assert choose_precision(RuntimeSettings(), CUDA) is torch.bfloat16
    assert choose_precision(RuntimeSettings(precision="float32"), CUDA) is torch.float32
    assert news.lines == []
    asked = RuntimeSettings(precision="bfloat16")
    chosen = choose_precision(asked, CPU)
    capable = cpu_multiplies_bfloat16()
    assert chosen is (torch.bfloat16 if capable else torch.float32)
    assert len(news.lines) == (0 if capable else 1)


@pytest.mark.parametrize(
    ("flags", "capable"),
    [("fpu avx2 avx512f", False), ("avx512f avx512_bf16", True), ("amx_bf16", True)],
)
def test_bfloat16_instructions_are_read_from_the_list(
    tmp_path: Path, flags: str, capable: bool
) -> None:
    path = tmp_path / "cpuinfo"
    assert not cpu_multiplies_bfloat16(path)
    path.write_text(f"processor : 0\nflags\t\t: {flags}\n")
    assert cpu_multiplies_bfloat16(path) is capable


def test_compile_is_for_cuda_unless_asked_for() -> None:
    assert not choose_compile(RuntimeSettings(), CPU)
    assert choose_compile(RuntimeSettings(), CUDA)
    assert choose_compile(RuntimeSettings(compile=True), CPU)


def test_autocast_changes_products_only_in_bfloat16() -> None:
    left = torch.ones(2, 2)
    with autocast(CPU, torch.float32):
        assert (left @ left).dtype is torch.float32
    with autocast(CPU, torch.bfloat16):
        assert (left @ left).dtype is torch.bfloat16


def test_threads_and_peak() -> None:
    assert set_threads(RuntimeSettings(threads=1)) == 1
    peak = peak_flops(CPU, torch.float32)
    assert peak.source == "measured" and 1e8 < peak.per_second < 1e15


def test_other_jobs_do_not_lower_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product that needs a millisecond of the processor, of which others take a second more."""
    clocks = {name: itertools.count(step=step) for name, step in (("own", 1e-3), ("wall", 1.0))}
    monkeypatch.setattr(time, "thread_time", lambda: next(clocks["own"]))
    monkeypatch.setattr(time, "perf_counter", lambda: next(clocks["wall"]))
    fastest_matmul.cache_clear()
    for threads in (1, 3):
        peak = peak_flops(CPU, torch.float32, threads)
        assert peak.per_second == pytest.approx(threads * 2 * 1024**3 / 1e-3)
    fastest_matmul.cache_clear()


def test_a_share_above_the_peak_is_no_share() -> None:
    assert utilisation(3e9, 2.0, 2e9) == {"model_flop_utilisation": 0.75}
    assert utilisation(38e9, 10.0, 1e9) == {}


FAULTS = """
import resource, sys
import torch
from feldspar.runtime.allocator import keep_freed_pages
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert keep_freed_pages()
torch.ones(1 << 23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(1 << 23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for glibc")
def test_kept_pages_are_not_faulted_in_again() -> None:
    faults = {
        mode: int(subprocess.check_output([sys.executable, "-c", FAULTS, mode], text=True))
        for mode in ("keep", "default")
    }
    assert faults["keep"] < faults["default"] / 10
