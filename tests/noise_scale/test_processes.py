"""Two real gloo processes, DDP and FSDP2, measure what one process does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "scripts" / "processes.py"


def run(kind: str, coverage: str, wrap: str, processes: int = 2) -> None:
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    result = subprocess.run(
        [sys.executable, "-m", *launcher, str(SCRIPT), kind, coverage, wrap],
        env=kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("all equal") == processes


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_measure_what_one_does(kind: str) -> None:
    run(kind, "all", "tied-after")


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize(
    ("coverage", "wrap"),
    [
        ("norm", "tied-after"),
        ("norm", "rms-before"),
        ("all", "untied-before"),
        ("all", "rms-after"),
    ],
)
def test_coverages_and_orders_of_wrapping(kind: str, coverage: str, wrap: str) -> None:
    run(kind, coverage, wrap)


def test_four_processes() -> None:
    run("fsdp", "all", "tied-after", processes=4)
