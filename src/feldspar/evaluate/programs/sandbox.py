"""Run a program that a model wrote, in a process of its own with limits.

The limits stop accidents and ordinary bad intent: endless loops, memory and disk that fill up,
processes, threads, sockets, and files outside a temporary folder. They do not protect against a
program that attacks the interpreter or the kernel: for that, start feldspar in a container or a
virtual machine. Nor do they keep a program from claiming that it passed its own test.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from feldspar.core.errors import RunError

CHILD = Path(__file__).with_name("sandboxed_child.py")
LONGEST_REPORT = 4096


@dataclass(frozen=True)
class Limits:
    """Limits of one program."""

    cpu_seconds: int = 5
    """Seconds of a processor."""
    wall_seconds: float = 20.0
    """Seconds by the clock, for programs that wait."""
    memory_bytes: int = 2**30
    """Address space, that of the interpreter included."""
    file_bytes: int = 2**20
    """Size of a file that it writes."""
    files: int = 64
    """Number of times that it opens a file for writing."""


class Outcome(StrEnum):
    """End of a program."""

    PASSED = "passed"
    FAILED = "failed"
    """An assertion of the test did not hold."""
    ERROR = "error"
    """It does not compile, another exception left it, or its process ended before the test."""
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True)
class Result:
    """Outcome of a program."""

    outcome: Outcome
    detail: str = ""
    """For an error the name of the exception, or how the process ended."""
    limited_by_kernel: bool = True
    """False where the system lacks a limit of `kernel_limits`."""


def run_program(program: str, limits: Limits = Limits()) -> Result:
    """Run Python source and return its outcome; it passes when it ends without an exception.

    It sees the standard library only, an empty environment and an empty temporary folder; what it
    prints is dropped. Hashes of strings are the same each time. Raises RunError where no process
    can be started.
    """
    folder = tempfile.mkdtemp(prefix="feldspar-program-")
    readable, writable = os.pipe()
    try:
        with tempfile.TemporaryFile() as given:
            given.write(json.dumps({"program": program} | asdict(limits)).encode())
            given.seek(0)
            process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-S", "-B", "-X", "utf8", str(CHILD), str(writable)],
                stdin=given,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env={"PYTHONHASHSEED": "0"},
                pass_fds=(writable,),
                start_new_session=True,
            )
        os.close(writable)
        writable = -1
        try:
            report, late = _read_report(readable, time.monotonic() + limits.wall_seconds)
        finally:
            # The process is not yet waited for, so its group's number is not given to others.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        for number in (readable, writable):
            if number >= 0:
                os.close(number)
        shutil.rmtree(folder, ignore_errors=True)
    cpu_spent = used.ru_utime + used.ru_stime >= limits.cpu_seconds
    return _result(report, late, process.returncode, cpu_spent)


def _read_report(readable: int, deadline: float) -> tuple[bytes, bool]:
    """Return the report of the program so far, and True if it did not end before the deadline."""
    report = b""
    while (left := deadline - time.monotonic()) > 0 and len(report) < LONGEST_REPORT:
        if select.select([readable], [], [], left)[0]:
            part = os.read(readable, LONGEST_REPORT)
            if not part:
                return report, False
            report += part
    return report, left <= 0


def _result(report: bytes, late: bool, exit_code: int, cpu_spent: bool) -> Result:
    first, _, rest = report.partition(b"\n")
    if first not in (b"limited", b"partly limited"):
        raise RunError(
            "a process with the limits of generated programs did not start"
            + (" in time" if late else f" (exit code {exit_code})"),
            do="check that the machine has memory and processes left",
        )
    limited = first == b"limited"
    with suppress(ValueError, TypeError):
        outcome, detail = json.loads(rest)
        return Result(Outcome(outcome), str(detail), limited)
    if late or cpu_spent or exit_code == -signal.SIGXCPU:
        return Result(Outcome.TIMED_OUT, "", limited)
    return Result(Outcome.ERROR, f"ended early, exit code {exit_code}", limited)
