"""Two real processes measure what one does, and take one decision."""

from pathlib import Path

import pytest

from tests.processes import run_together
from tests.train.conftest import Command, metrics_of
from tests.train.test_distributed import torchrun
from tests.train.test_steered_batch import STEERED

MEASURES = ("noise_scale/norm/noise", "noise_scale/norm/signal_sq", "noise_scale/norm")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_measure_what_one_does(
    recipe_file: Path, tmp_path: Path, feldspar: Command, kind: str
) -> None:
    changes = ["phases.0.length=8 steps", "phases.1.length=4 steps", "noise_scale={}"]
    changes += ["runtime.micro_batch_sequences=2"]
    calibrated = ["noise_scale.calibrate=ranks"] if kind == "ddp" else []
    assert feldspar("train", recipe_file, *changes, "--out", tmp_path / "one").returncode == 0
    distribution = f"runtime.distribution={kind}"
    result = torchrun(recipe_file, tmp_path / "two", *changes, *calibrated, distribution)
    assert result.returncode == 0, result.stderr
    pairs = list(zip(metrics_of(tmp_path / "two"), metrics_of(tmp_path / "one"), strict=True))
    for two, one in pairs[:4]:
        for key in MEASURES[:2]:
            scale = abs(one["noise_scale/norm/noise"])
            assert two[key] == pytest.approx(one[key], rel=1e-3, abs=1e-4 * scale)
    assert ("noise_scale/total/noise" in pairs[0][0]) == (kind == "ddp")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_are_steered_together(recipe_file: Path, tmp_path: Path, kind: str) -> None:
    distribution = f"runtime.distribution={kind}"
    result = torchrun(recipe_file, tmp_path / "two", *STEERED, distribution)
    assert result.returncode == 0, result.stderr
    records = [row for row in metrics_of(tmp_path / "two") if row["phase"] == "short"]
    assert records[-1]["tokens"] == 8000 == 16 * sum(row["sequences"] for row in records)
    assert max(row["sequences"] for row in records) > 2


@pytest.mark.slow
def test_processes_that_would_take_other_batches_stop(recipe_file: Path) -> None:
    script = Path(__file__).parent / "scripts" / "different_batches.py"
    result = run_together(2, [script, recipe_file, *STEERED])
    assert result.returncode == 0, result.stderr
    lines = sorted(result.stdout.splitlines())
    told = "the processes disagree on the next batch: 2 sequences on rank 0, 4 on rank 1"
    assert lines == ["rank 0: 2", f"rank 0: {told}", "rank 1: 2", f"rank 1: {told}"]


@pytest.mark.slow
def test_fsdp_has_no_groups_to_calibrate_with(recipe_file: Path, tmp_path: Path) -> None:
    result = torchrun(
        recipe_file,
        tmp_path / "two",
        "noise_scale={calibrate: microbatch}",
        "runtime.distribution=fsdp",
    )
    assert result.returncode != 0
    assert "split over processes" in result.stderr
    assert not (tmp_path / "two" / "metrics.jsonl").exists()
