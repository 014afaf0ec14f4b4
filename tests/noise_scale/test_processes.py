"""Two real gloo processes, DDP and FSDP2, measure what one process does."""

from pathlib import Path

import pytest

from tests.processes import run_together

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parent / "scripts" / "processes.py"


def run(kind: str, *cases: str, processes: int = 2) -> None:
    """All cases in one launch, as starting processes takes longer than measuring."""
    result = run_together(processes, [SCRIPT, kind, *cases])
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
