"""Records survive a killed process; what is lost or altered in them is found and named."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldspar.core.records import (
    Damage,
    Mark,
    RecordFile,
    append_record,
    gaps,
    last_record,
    read_records,
    read_steps,
    restore_steps,
    step_seconds,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def written(path: Path, steps: range) -> Mark:
    """The mark of a file of so many steps of 10 tokens."""
    file = RecordFile(path)
    for step in steps:
        file.append({"step": step, "tokens": 10 * step, "train/loss": 0.1 * step})
    file.close()
    return file.mark()


def steps_of(path: Path) -> list[int]:
    return [record["step"] for record in read_steps(path)]


@given(value=st.floats())
def test_floats_keep_every_bit_in_strict_json(
    tmp_path_factory: pytest.TempPathFactory, value: float
) -> None:
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    append_record(path, {"train/loss": value})
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    (record,) = read_records(path)
    read = record["train/loss"]
    assert read == value or (math.isnan(read) and math.isnan(value))


def test_the_last_record_is_found_behind_a_torn_line_and_a_long_file(path: Path) -> None:
    assert last_record(path) is None
    path.write_bytes(b'{"step": 1')
    assert last_record(path) is None
    path.unlink()
    written(path, range(1, 3000))
    assert last_record(path) == list(read_records(path))[-1]
    with path.open("ab") as file:
        file.write(b'{"step": 3000, "tok')
    assert last_record(path) == list(read_records(path))[-1]


def test_a_torn_line_does_not_take_the_next_one_along(path: Path) -> None:
    append_record(path, {"event": "a"})
    with path.open("ab") as file:
        file.write(b'{"event": "b')
    append_record(path, {"event": "c"})
    assert [record["event"] for record in read_records(path)] == ["a", "c"]


def test_a_mark_is_that_of_the_whole_file_whoever_wrote_it(path: Path, tmp_path: Path) -> None:
    written(path, range(1, 4))
    in_parts = written(path, range(4, 6))
    assert in_parts == written(tmp_path / "other", range(1, 6))
    assert in_parts.bytes == path.stat().st_size


def test_what_follows_a_mark_is_dropped_and_nothing_is_wrong(path: Path) -> None:
    mark = written(path, range(1, 5))
    written(path, range(5, 9))
    assert not restore_steps(path, 4, 40, "tokens", mark)
    assert steps_of(path) == [1, 2, 3, 4] and path.stat().st_size == mark.bytes


def test_a_change_of_any_byte_is_found(path: Path) -> None:
    """Each byte of three records; what is left is written, what is lost is named."""
    mark = written(path, range(1, 4))
    text = path.read_bytes()
    for place in range(len(text)):
        data = bytearray(text)
        data[place] ^= 1
        path.write_bytes(data)
        damage = restore_steps(path, 3, 30, "tokens", mark)
        assert damage, f"byte {place}"
        lost = {step for a, b in damage.missing for step in range(a, b + 1)}
        assert set(steps_of(path)) == {1, 2, 3} - lost
        assert lost or damage.altered or damage.unreadable


@pytest.mark.parametrize("lost", [(1,), (2,), (3,), (1, 2), (2, 3), (1, 3), (1, 2, 3)])
def test_missing_records_are_named(path: Path, lost: tuple[int, ...]) -> None:
    mark = written(path, range(1, 4))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for step, line in enumerate(lines, 1) if step not in lost))
    damage = restore_steps(path, 3, 30, "tokens", mark)
    assert {step for a, b in damage.missing for step in range(a, b + 1)} == set(lost)
    assert steps_of(path) == [step for step in (1, 2, 3) if step not in lost]


def test_a_file_that_is_gone_is_named(path: Path) -> None:
    damage = restore_steps(path, 3, 30, "tokens", Mark(10, "x"))
    assert damage.missing == ((1, 3),) and "no record of step 1 to 3" in str(damage)


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"{}", b"[1]", b"5", b"\xff", b"[" * 9999),
        *(b'{"step": "2", "tokens": 20}', b'{"step": 2}', b'{"step": true, "tokens": 20}'),
        *(b'{"step": 2, "tokens": null}', b'{"step": -2, "tokens": 1}'),
    ],
)
def test_lines_that_are_no_record_are_dropped_and_counted(path: Path, line: bytes) -> None:
    written(path, range(1, 3))
    with path.open("ab") as file:
        file.write(line + b"\n")
    written(path, range(3, 5))
    assert steps_of(path) == [1, 2, 3, 4]
    damage = restore_steps(path, 4, 40, "tokens")
    assert damage == Damage(unreadable=1)
    assert steps_of(path) == [1, 2, 3, 4]


def test_a_record_twice_counts_once(path: Path) -> None:
    written(path, range(1, 4))
    written(path, range(2, 5))
    assert steps_of(path) == [1, 2, 3, 4]
    assert restore_steps(path, 4, 40, "tokens") == Damage(unreadable=2)


def test_gaps() -> None:
    assert gaps([], 0) == gaps([1, 2], 2) == ()
    assert gaps([], 3) == ((1, 3),)
    assert gaps([2, 5], 7) == ((1, 1), (3, 4), (6, 7))


def test_seconds_of_steps() -> None:
    rows = [
        {"step": 1, "tokens": 10, "tokens_per_second": 5.0},
        {"step": 2, "tokens": 40, "tokens_per_second": "nan"},
        {"step": 3, "tokens": 50},
        {"step": 4, "tokens": 70, "tokens_per_second": 40},
    ]
    first, second, third, last = step_seconds(rows, "tokens")
    assert (first, last) == (2.0, 0.5) and math.isnan(second) and math.isnan(third)
