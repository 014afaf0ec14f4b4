"""Units of stages: run once, again when damaged or changed; one process a folder."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from feldspar.core.errors import SetupError, UserError
from feldspar.core.execution import SerialExecutor
from feldspar.corpus.duplicates.runs import Range
from feldspar.corpus.stages import Done, Stages, UnitFiles, work_folder


def double(unit: tuple[Path, int], folder: Path) -> dict[str, Any]:
    """Leaves a trace of each call beside its output."""
    trace, number = unit
    with trace.open("a") as file:
        file.write(f"{number} ")
    (folder / "doubled").write_text(str(2 * number))
    return {"number": number}


def run(work: Path, configuration: str, numbers: list[int]) -> list[int]:
    """The numbers that were really worked on."""
    trace = work / "trace"
    trace.write_text("")
    stages = Stages(work, SerialExecutor(), configuration)
    units = (((trace, number), str(number)) for number in numbers)
    done = list(stages.run("double", double, units))
    assert [each.counts["number"] for each in done] == numbers
    assert [int((each.folder / "doubled").read_text()) for each in done] == [2 * n for n in numbers]
    return [int(word) for word in trace.read_text().split()]


def test_only_what_is_missing_damaged_or_changed_is_made(tmp_path: Path) -> None:
    assert run(tmp_path, "a", [1, 2, 3]) == [1, 2, 3]
    assert run(tmp_path, "a", [1, 2, 3]) == []
    assert run(tmp_path, "a", [1, 5, 3, 4]) == [5, 4]
    (tmp_path / "double" / "000000" / "doubled").write_text("7")
    (tmp_path / "double" / "000002" / "manifest.json").write_text("{")
    (tmp_path / "double" / "000003.incomplete-x").mkdir()
    assert run(tmp_path, "a", [1, 5, 3, 4]) == [1, 3]
    assert not (tmp_path / "double" / "000003.incomplete-x").exists()
    assert run(tmp_path, "b", [1, 5]) == [1, 5]


class OtherMachines(SerialExecutor):
    """Notes which units are done before it is given them."""

    elsewhere = True

    def __init__(self) -> None:
        self.done_before: list[bool] = []

    def map(self, function: Any, units: Any) -> Any:
        for task in units:
            self.done_before.append(task.folder.exists())
            yield function(task)


def test_what_only_this_machine_can_run_is_done_before_it_is_given_out(tmp_path: Path) -> None:
    pool, trace = OtherMachines(), tmp_path / "trace"
    units = [((trace, number), "") for number in range(3)]
    done = Stages(tmp_path, pool, "a").run("double", double, units, here=[True, False, True])
    assert [each.counts["number"] for each in done] == [0, 1, 2]
    assert pool.done_before == [True, False, True]
    assert trace.read_text().split() == ["0", "1", "2"]


def test_a_later_stage_depends_on_those_before(tmp_path: Path) -> None:
    for parts, expected in ((["x"], [1]), (["x"], []), (["y"], [1])):
        trace = tmp_path / "trace"
        trace.write_text("")
        stages = Stages(tmp_path, SerialExecutor(), "a")
        stages.bind(*parts)
        list(stages.run("double", double, [((trace, 1), "")]))
        assert [int(word) for word in trace.read_text().split()] == expected


def test_the_files_of_units_are_few_bytes_however_many(tmp_path: Path) -> None:
    folders = [done.folder for done in stage_of(tmp_path, 3)]
    files = UnitFiles(tmp_path / "double", "doubled", 3)
    assert list(files) == [folder / "doubled" for folder in folders]
    assert files[1:] == (files[1], files[-1])
    with pytest.raises(IndexError):
        files[3]
    many = UnitFiles(tmp_path / "double", "doubled", 250_000)
    assert len(pickle.dumps(Range(many, None, None))) < 1000


def stage_of(work: Path, units: int) -> list[Done]:
    numbers = [((work / "trace", number), str(number)) for number in range(units)]
    return list(Stages(work, SerialExecutor(), "a").run("double", double, numbers))


def test_the_work_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "out.incomplete-left").mkdir()
    for error, left in ((KeyboardInterrupt, True), (SetupError, True), (UserError, False)):
        with pytest.raises(error), work_folder(out) as work:
            assert not (tmp_path / "out.incomplete-left").exists()
            (work / "something").write_text("")
            with pytest.raises(UserError, match="another process"), work_folder(out):
                pass
            raise error("stop")
        assert (tmp_path / "out.incomplete-work" / "something").exists() == left
    with work_folder(out):
        pass
    assert list(tmp_path.iterdir()) == []
