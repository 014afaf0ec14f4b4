"""Records survive a killed process, and no second process trains in the same folder."""

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldspar.core.errors import UserError
from feldspar.runtime import RunFolder, read_records
from feldspar.runtime.run_folder import RecordFile


def write(folder: RunFolder, steps: range) -> None:
    file = RecordFile(folder.metrics)
    for step in steps:
        file.append({"step": step, "tokens": 10 * step, "train/loss": 0.1 * step})
    file.close()


def steps_of(folder: RunFolder) -> list[int]:
    return [record["step"] for record in read_records(folder.metrics)]


def test_a_resumed_run_has_one_record_a_step(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write(folder, range(1, 8))
    folder.forget_after(tokens=40)
    assert steps_of(folder) == [1, 2, 3, 4]
    write(folder, range(5, 10))
    assert steps_of(folder) == list(range(1, 10))


def test_a_torn_last_line_is_left_out_and_dropped_on_resume(tmp_path: Path, news: Any) -> None:
    folder = RunFolder(tmp_path)
    write(folder, range(1, 4))
    with folder.metrics.open("ab") as file:
        file.write(b'{"step": 4, "tok')
    assert steps_of(folder) == [1, 2, 3]
    folder.forget_after(tokens=1000)
    write(folder, range(4, 6))
    assert steps_of(folder) == [1, 2, 3, 4, 5]
    assert news.lines == []


def test_an_unreadable_line_in_the_middle_is_said(tmp_path: Path, news: Any) -> None:
    folder = RunFolder(tmp_path)
    write(folder, range(1, 2))
    with folder.metrics.open("ab") as file:
        file.write(b"\xff\xff\n")
    write(folder, range(2, 3))
    folder.forget_after(tokens=1000)
    assert steps_of(folder) == [1, 2]
    assert "1 unreadable" in news.lines[0]


def test_a_new_run_has_nothing_to_forget(tmp_path: Path) -> None:
    RunFolder(tmp_path).forget_after(tokens=0)
    assert list(tmp_path.iterdir()) == []


@given(value=st.floats())
def test_floats_keep_every_bit_in_strict_json(
    tmp_path_factory: pytest.TempPathFactory, value: float
) -> None:
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    file = RecordFile(path)
    file.append({"train/loss": value})
    file.close()
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    (record,) = read_records(path)
    read = record["train/loss"]
    assert read == value or (math.isnan(read) and math.isnan(value))


def test_the_recipe_is_kept_as_text(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "a")
    assert folder.read_recipe() is None
    folder.write_recipe("name: a  # caf\u00e9\n")
    assert folder.read_recipe() == "name: a  # caf\u00e9\n"


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
