"""Two real gloo processes, DDP and FSDP2, measure what one process does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "scripts" / "processes.py"


def run(kind: str, *cases: str, processes: int = 2) -> None:
    """All cases in one launch, as starting processes takes longer than measuring."""
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    result = subprocess.run(
        [sys.executable, "-m", *launcher, str(SCRIPT), kind, *cases],
        env=kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    for case in cases:
        assert result.stdout.count(f"{case}: all equal") == processes


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_measure_what_one_does(kind: str) -> None:
    """Coverages, models and orders of wrapping and instrumenting."""
    whole = ("all-tied-after", "all-untied-before", "all-rms-after")
    run(kind, *whole, "norm-tied-after", "norm-rms-before")


def test_four_processes() -> None:
    run("fsdp", "all-tied-after", processes=4)
