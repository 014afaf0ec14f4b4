"""Programs in the sandbox: each kind of harm is stopped, and each end is told apart."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from feldspar.core.errors import RunError
from feldspar.evaluate.programs import sandbox
from feldspar.evaluate.programs.sandbox import Limits, Outcome, Result, run_program

TIGHT = Limits(cpu_seconds=1, wall_seconds=10, memory_bytes=2**28, file_bytes=1000, files=3)

# Programs that do not attempt anything, and how they end.
ENDS = {
    "pass": (Outcome.PASSED, ""),
    "assert 1 + 1 == 3": (Outcome.FAILED, ""),
    "def f(:": (Outcome.ERROR, "SyntaxError"),
    "print(undefined)": (Outcome.ERROR, "NameError"),
    "import sys; sys.exit(0)": (Outcome.ERROR, "SystemExit"),
    "import os; os._exit(0)": (Outcome.ERROR, "ended early, exit code 0"),
    "def f(): return f()\nf()": (Outcome.ERROR, "RecursionError"),
    "import numpy": (Outcome.ERROR, "ModuleNotFoundError"),
    "x = 'a' * 10**12": (Outcome.OUT_OF_MEMORY, ""),
    "print('x' * 10**6)": (Outcome.PASSED, ""),
    # Only what the interpreter sets itself is in the environment.
    "import os; assert {*os.environ} <= {'PYTHONHASHSEED', 'LC_CTYPE'}": (Outcome.PASSED, ""),
    "import os; assert os.listdir() == [] and input": (Outcome.PASSED, ""),
    "import dataclasses as d\n@d.dataclass\nclass A:\n  x: 'int'\nA(1)": (Outcome.PASSED, ""),
}


@pytest.mark.parametrize("program", ENDS)
def test_the_end_of_a_program(program: str) -> None:
    found = run_program(program, TIGHT)
    assert (found.outcome, found.detail) == ENDS[program]


# Programs that are refused what they attempt: the exception that they see.
REFUSED = {
    "import os\nwhile True: os.fork()": "PermissionError",
    "import subprocess; subprocess.run(['true'])": "PermissionError",
    "import os; os.system('true')": "PermissionError",
    "import multiprocessing; multiprocessing.Process(target=print).start()": "PermissionError",
    "import socket; socket.socket()": "PermissionError",
    "import _socket; _socket.socketpair()": "PermissionError",
    "import os; os.kill(os.getppid(), 9)": "PermissionError",
    "import ctypes": "PermissionError",
    "import resource as r; r.setrlimit(r.RLIMIT_AS, (2**40, 2**40))": "PermissionError",
    "import os; os.chmod('.', 0o777)": "PermissionError",
    "import os; os.symlink('/', 'root')": "PermissionError",
    "open('x', 'wb', 0).write(bytes(2000)); open('x', 'ab', 0).write(b'x')": "OSError",
    "for number in range(4): open(str(number), 'w')": "PermissionError",
}


@pytest.mark.parametrize("program", REFUSED)
def test_the_attempt_is_refused(program: str) -> None:
    found = run_program(program, TIGHT)
    assert (found.outcome, found.detail) == (Outcome.ERROR, REFUSED[program])


def test_an_endless_loop_is_stopped_even_if_it_catches_everything() -> None:
    stubborn = (
        "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"
        "while True:\n  try:\n    while True: pass\n  except BaseException: pass"
    )
    begin = time.monotonic()
    patient = replace(TIGHT, wall_seconds=100)
    assert run_program(stubborn, patient).outcome is Outcome.TIMED_OUT
    assert time.monotonic() - begin < 100, "the seconds of the processor end it"


def test_a_program_that_waits_is_stopped() -> None:
    found = run_program("import time; time.sleep(60)", Limits(wall_seconds=1))
    assert found.outcome is Outcome.TIMED_OUT


def test_memory_that_grows_is_stopped() -> None:
    grows = "held = []\nwhile True: held.append(bytearray(10**6))"
    assert run_program(grows, TIGHT).outcome is Outcome.OUT_OF_MEMORY


def test_files_are_written_in_the_own_folder_only(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("as before")
    attempts = (
        f"open({str(kept)!r}, 'w')",
        f"import os; os.open({str(kept)!r}, os.O_TRUNC)",
        f"import os; os.remove({str(kept)!r})",
        f"import os; os.truncate({str(kept)!r}, 0)",
        f"import os; open('x', 'w'); os.rename('x', {str(kept)!r})",
        f"import os; os.mkdir({str(tmp_path / 'new')!r})",
        f"import sqlite3; sqlite3.connect({str(tmp_path / 'new')!r}).execute('create table a(b)')",
        "open('/dev/shm/feldspar', 'w')",
        "import os; open(f'../{os.getpid()}', 'w')",
    )
    for attempt in attempts:
        assert run_program(attempt, TIGHT).outcome is Outcome.ERROR, attempt
    assert kept.read_text() == "as before" and list(tmp_path.iterdir()) == [kept]
    inside = "import os; open('x', 'w').write('y'); os.rename('x', 'z'); assert open('z').read()"
    assert run_program(inside, TIGHT).outcome is Outcome.PASSED


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_the_kernel_refuses_what_audit_events_do_not_show(listening: int, tmp_path: Path) -> None:
    """The hook is emptied first, as a program that knows this file could do."""
    if not run_program("pass", TIGHT).limited_by_kernel:
        pytest.skip("this system has no Landlock or no seccomp")
    freed = (
        "import gc, os\n"
        "for held in gc.get_objects():\n"
        "  if getattr(held, '__name__', '') == 'hook':\n"
        "    held.__code__ = (lambda folder: lambda *given: folder)(0).__code__.replace(\n"
        "      co_freevars=held.__code__.co_freevars)\n"
    )
    assert run_program(freed + "import ctypes", TIGHT).outcome is Outcome.PASSED, "it is emptied"
    attempts = {
        "os.fork()": "PermissionError",
        "os.execv('/bin/true', ['true'])": "PermissionError",
        f"import socket; socket.create_connection(('127.0.0.1', {listening}))": "PermissionError",
        f"os.mkdir({str(tmp_path / 'new')!r})": "PermissionError",
        f"os.symlink('a', {str(tmp_path / 'new')!r})": "PermissionError",
        "import threading; threading.Thread(target=print).start()": "RuntimeError",
        "import resource as r; r.setrlimit(r.RLIMIT_CPU, (9, 9))": "ValueError",
        "os.kill(os.getppid(), 0)": "PermissionError",
        "os.chmod('.', 0o700)": "PermissionError",
    }
    for attempt, refused in attempts.items():
        found = run_program(freed + attempt, TIGHT)
        assert (found.outcome, found.detail) == (Outcome.ERROR, refused), attempt
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox.tempfile, "tempdir", str(tmp_path))
    files = Path("/proc/self/fd")  # of Linux
    before = len([*files.iterdir()]) if files.exists() else 0
    for program in ("open('x', 'w').write('y')", "import os; os._exit(1)"):
        run_program(program, TIGHT)
    assert not list(tmp_path.iterdir())
    assert before == (len([*files.iterdir()]) if files.exists() else 0)


def test_the_same_each_time() -> None:
    program = "assert hash('feldspar') == %d"
    sets = "assert list({'a', 'b', 'c', 'd', 'e'}) == %r"
    env = {"PYTHONHASHSEED": "0"}
    for source, expression in (
        (program, "hash('feldspar')"),
        (sets, "list({'a','b','c','d','e'})"),
    ):
        known = eval(_printed(f"print({expression})", env))
        assert run_program(source % known, TIGHT) == Result(Outcome.PASSED)


def _printed(source: str, env: dict[str, str]) -> str:
    return subprocess.run(
        [sys.executable, "-c", source], env=env, capture_output=True, text=True, check=True
    ).stdout


def test_a_process_that_does_not_start_is_an_error_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text("raise SystemExit(3)")
    monkeypatch.setattr(sandbox, "CHILD", tmp_path / "broken.py")
    with pytest.raises(RunError, match=r"did not start \(exit code 3\)"):
        run_program("pass", TIGHT)
