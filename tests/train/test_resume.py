"""Killed, interrupted, short of disk: the same command goes on to the same bits."""

import random
import resource
import signal
import time
from pathlib import Path

import pytest

from tests.processes import Forked
from tests.train.conftest import Command, losses_of, metrics_of


def start(recipe: Path, out: Path) -> Forked:
    return Forked(["feldspar", "train", recipe, "--out", out])


def wait_for_steps(process: Forked, out: Path, steps: int) -> None:
    """Until so many steps are recorded, or the process has ended."""
    while process.poll() is None:
        metrics = out / "metrics.jsonl"
        if metrics.is_file() and metrics.read_bytes().count(b"\n") >= steps:
            return
        time.sleep(0.002)


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_bit_for_bit(
    recipe_file: Path, tmp_path: Path, feldspar: Command
) -> None:
    assert feldspar("train", recipe_file, "--out", tmp_path / "whole").returncode == 0
    out = tmp_path / "killed"
    chance = random.Random(5)
    kills = 0
    for steps in (2, 9, 17, 26, 31):
        process = start(recipe_file, out)
        wait_for_steps(process, out, steps)
        # Also within the write of a checkpoint, which follows each fourth step.
        time.sleep(chance.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    result = feldspar("train", recipe_file, "--out", out)
    assert result.returncode == 0, result.stderr
    assert kills >= 3
    assert losses_of(out) == losses_of(tmp_path / "whole")
    assert [record["step"] for record in metrics_of(out)] == list(range(1, 37))
    assert not list((out / "checkpoints").glob("*incomplete*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_the_run_goes_on(
    recipe_file: Path, tmp_path: Path, feldspar: Command, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "run"
    process = start(recipe_file, out)
    wait_for_steps(process, out, 5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    done = len(metrics_of(out))
    assert done < 36
    newest = max(int(folder.name) for folder in (out / "checkpoints").iterdir())
    assert newest == done * 128
    assert feldspar("train", recipe_file, "--out", out).returncode == 0
    assert len(metrics_of(out)) == 36


def small_files_only() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))


def test_no_space_for_a_checkpoint(recipe_file: Path, tmp_path: Path, feldspar: Command) -> None:
    out = tmp_path / "run"
    assert feldspar("train", recipe_file, "phases.1.length=4 steps", "--out", out).returncode == 0
    before = {path: path.read_bytes() for path in (out / "checkpoints").rglob("*.safetensors")}
    result = feldspar("train", recipe_file, "--out", out, before=small_files_only)
    assert result.returncode == 3, result.stderr
    assert "no space left" in result.stderr
    assert "Traceback" not in result.stderr
    assert all(path.read_bytes() == content for path, content in before.items())
    assert not list((out / "checkpoints").glob("*incomplete*"))
    assert feldspar("train", recipe_file, "--out", out).returncode == 0
    assert len(losses_of(out)) == 36


def test_a_truncated_shard_is_named(
    recipe_file: Path, shards_folder: Path, tmp_path: Path, feldspar: Command
) -> None:
    import shutil

    copy = tmp_path / "shards"
    shutil.copytree(shards_folder, copy)
    shard = next(copy.rglob("train/prose/*.tokens"))
    shard.write_bytes(shard.read_bytes()[:-2])
    result = feldspar("train", recipe_file, f"shards.path={copy}", "--out", tmp_path / "run")
    assert result.returncode == 4
    assert shard.name in result.stderr
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
