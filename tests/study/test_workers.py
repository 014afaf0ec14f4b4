"""Worker processes: results as they come, errors whole, and a polite end in every case."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from feldspar.core.errors import RunError, UserError
from feldspar.study.workers import run_side_by_side

ROOT = Path(__file__).parents[2]


def square(unit: int) -> int:
    return unit * unit


class Stopped(BaseException):
    """Raised by the signal."""


def wait_for_the_stop(folder: Path) -> None:
    """Begin, then note the signal that ends the wait."""

    def stop(number: int, frame: object) -> None:
        raise Stopped

    signal.signal(signal.SIGTERM, stop)
    try:
        (folder / "begun").touch()
        print("begun", flush=True)
        signal.pause()
    except Stopped:
        (folder / "stopped").touch()


def fail_beside_it(unit: tuple[str, Path]) -> None:
    """One unit waits, the other fails once the first has begun."""
    role, folder = unit
    if role == "wait":
        wait_for_the_stop(folder)
    while not (folder / "begun").exists():
        pass
    raise UserError("this unit is bad", where="here")


def end_at_three(unit: int) -> int:
    if unit == 3:
        os._exit(9)
    return unit


def test_every_unit_has_its_result() -> None:
    watched = []
    results = dict(run_side_by_side(square, range(7), 2, lambda: watched.append(None)))
    assert results == {unit: unit * unit for unit in range(7)}
    assert watched


def test_an_error_comes_whole_and_the_others_may_save_their_state(tmp_path: Path) -> None:
    units = [("wait", tmp_path), ("fail", tmp_path)]
    with pytest.raises(UserError, match="this unit is bad") as caught:
        list(run_side_by_side(fail_beside_it, units, 2, lambda: None))
    assert caught.value.where == "here"
    assert (tmp_path / "stopped").exists()


def test_a_worker_that_dies_is_a_run_error() -> None:
    with pytest.raises(RunError, match="ended unexpectedly") as caught:
        list(run_side_by_side(end_at_three, range(6), 2, lambda: None))
    assert caught.value.found == "exit code 9"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_workers_end_with_their_study(tmp_path: Path, number: signal.Signals, code: int) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from feldspar.study.workers import run_side_by_side\n"
        "from tests.study.test_workers import wait_for_the_stop\n"
        "if __name__ == '__main__':\n"
        "    list(run_side_by_side(wait_for_the_stop, [Path(sys.argv[1])], 1, lambda: None))\n"
    )
    (tmp_path / "script.py").write_text(script)
    study = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert study.stdout is not None
    assert study.stdout.readline() == b"begun\n"
    study.send_signal(number)
    assert study.stdout.read() == b""  # the worker holds the other end: it is gone
    assert (tmp_path / "stopped").exists()
    assert study.wait() == code
