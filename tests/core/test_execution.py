"""Units of work: in order, lazily, and with their errors, in one process or two."""

import os
import signal
from collections.abc import Iterator

import pytest

from feldspar.core.errors import RunError, UserError
from feldspar.core.execution import ProcessExecutor, available_cores, executor


def square(unit: int) -> int:
    return unit * unit


def fail_at_three(unit: int) -> int:
    if unit == 3:
        raise UserError("unit 3 is bad", where="here", allowed="others")
    return unit


def die_at_three(unit: int) -> int:
    if unit == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return unit


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_units(workers: int) -> None:
    with executor(workers) as pool:
        assert list(pool.map(square, range(20))) == [n * n for n in range(20)]
        assert list(pool.map(square, [])) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_whole_at_its_place(workers: int) -> None:
    done = []
    with executor(workers) as pool, pytest.raises(UserError, match="unit 3") as caught:
        for result in pool.map(fail_at_three, range(10)):
            done.append(result)
    assert done == [0, 1, 2]
    assert (caught.value.where, caught.value.allowed) == ("here", "others")


def test_units_are_asked_for_as_they_are_needed() -> None:
    asked: list[int] = []

    def units() -> Iterator[int]:
        for number in range(1000):
            asked.append(number)
            yield number

    with executor(2) as pool:
        assert isinstance(pool, ProcessExecutor)
        assert next(pool.map(square, units())) == 0
    assert len(asked) <= 4


def test_a_worker_that_is_killed_is_a_run_error() -> None:
    with executor(2) as pool, pytest.raises(RunError, match="ended unexpectedly"):
        list(pool.map(die_at_three, range(10)))


def test_cores() -> None:
    assert available_cores() >= 1
