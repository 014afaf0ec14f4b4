"""Records survive a killed process, and no second process trains in the same folder."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feldspar.core.errors import UserError
from feldspar.core.files import TEMPORARY_MARK
from feldspar.core.records import RecordFile
from feldspar.runtime.run_folder import RunFolder


def write(folder: RunFolder, steps: range) -> None:
    file = RecordFile(folder.metrics)
    for step in steps:
        file.append({"step": step, "tokens": 10 * step, "train/loss": 0.1 * step})
    file.close()


def steps_of(folder: RunFolder) -> list[int]:
    return [record["step"] for record in folder.steps()]


def test_a_resumed_run_has_one_record_a_step(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write(folder, range(1, 8))
    folder.restore(4, 40)
    assert steps_of(folder) == [1, 2, 3, 4]
    write(folder, range(5, 10))
    assert steps_of(folder) == list(range(1, 10))


def test_a_torn_last_line_is_left_out_and_dropped_on_resume(tmp_path: Path, news: Any) -> None:
    folder = RunFolder(tmp_path)
    write(folder, range(1, 4))
    with folder.metrics.open("ab") as file:
        file.write(b'{"step": 4, "tok')
    assert steps_of(folder) == [1, 2, 3]
    folder.restore(3, 30)
    write(folder, range(4, 6))
    assert steps_of(folder) == [1, 2, 3, 4, 5]
    assert news.lines == []


def test_what_is_missing_is_said(tmp_path: Path, news: Any) -> None:
    folder = RunFolder(tmp_path)
    write(folder, range(1, 2))
    with folder.metrics.open("ab") as file:
        file.write(b"\xff\xff\n")
    write(folder, range(3, 6))
    folder.bad_batches.write_bytes(b'{"step": 1, "tokens": 10}\n{}\n{"step"\n{}\n')
    damage = folder.restore(4, 40)
    assert damage.missing == ((2, 2),) and damage.unreadable == 1
    assert steps_of(folder) == [1, 3, 4]
    assert "no record of step 2; 1 unreadable lines" in news.lines[0]
    assert "bad_batches.jsonl: 1 unreadable" in news.lines[1]
    assert folder.bad_batches.read_bytes() == b'{"step": 1, "tokens": 10}\n'


def test_a_new_run_has_nothing_to_forget(tmp_path: Path, news: Any) -> None:
    RunFolder(tmp_path).restore(0, 0)
    RunFolder(tmp_path).forget()
    assert list(tmp_path.iterdir()) == [] and news.lines == []


def test_steps_without_a_checkpoint_are_forgotten_aloud(tmp_path: Path, news: Any) -> None:
    folder = RunFolder(tmp_path)
    write(folder, range(1, 4))
    folder.forget()
    assert not folder.metrics.exists() and "no checkpoint of its 3 steps" in news.lines[0]


def test_a_folder_holds_a_run_by_its_recipe_or_its_checkpoints(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "a")
    assert not folder.holds_run
    folder.write_recipe("name: a  # caf\u00e9\n")
    assert folder.holds_run
    (folder.path / "recipe.yaml").unlink()
    folder.checkpoints.mkdir()
    assert not folder.holds_run
    (folder.checkpoints / "000000000000010").mkdir()
    assert folder.holds_run


def test_a_second_process_is_refused_and_a_dead_one_is_not_waited_for(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start("hold_lock.py", tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    with pytest.raises(UserError, match="another process is training") as caught:
        RunFolder(tmp_path).lock().__enter__()
    assert str(process.pid) in str(caught.value)
    process.kill()
    process.wait()
    with RunFolder(tmp_path).lock():
        pass
    with RunFolder(tmp_path).lock():
        pass


def test_what_a_killed_process_left_goes_and_a_release_in_the_making_stays(tmp_path: Path) -> None:
    for name in ("tokenizer", "recipe.yaml", "release"):
        (tmp_path / f"{name}{TEMPORARY_MARK}1").mkdir()
    RunFolder(tmp_path).remove_incomplete()
    assert [entry.name for entry in tmp_path.iterdir()] == [f"release{TEMPORARY_MARK}1"]
