"""Run one program under limits. `sandbox` starts this file as a process of its own.

It imports only the standard library. Its standard input holds the program and the limits as JSON;
its first argument is the number of an open file for the outcome.
"""

import json
import os
import resource
import runpy
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

REFUSED = (
    "ctypes.",
    "os.chflags",
    "os.chmod",
    "os.chown",
    "os.exec",
    "os.fork",
    "os.kill",
    "os.link",
    "os.posix_spawn",
    "os.removexattr",
    "os.setxattr",
    "os.spawn",
    "os.startfile",
    "os.symlink",
    "os.system",
    "os.utime",
    "pty.",
    "resource.",
    "signal.pthread_kill",
    "socket.",
    "subprocess.",
    "syslog.",
)
"""Beginnings of audit events that are refused: processes, sockets, signals, rights, code in other
languages."""
WRITERS = {"os.mkdir": 1, "os.remove": 1, "os.rename": 2, "os.rmdir": 1, "os.truncate": 1}
"""Audit events that change files, and the number of paths among their arguments."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def main() -> None:
    """Run the program and report its outcome."""
    report = int(sys.argv[1])
    given = json.load(sys.stdin)
    folder = os.path.realpath(Path.cwd())
    cpu, memory, file_bytes = given["cpu_seconds"], given["memory_bytes"], given["file_bytes"]
    limit = resource.setrlimit
    limit(resource.RLIMIT_CORE, (0, 0))
    limit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    limit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    limit(resource.RLIMIT_NOFILE, (32, 32))
    limit(resource.RLIMIT_AS, (memory, memory))
    if hasattr(resource, "RLIMIT_NPROC"):
        limit(resource.RLIMIT_NPROC, (0, 0))
    kernel = _limit_by_kernel(folder)
    sys.addaudithook(_audit_hook(folder, given["files"]))
    # From here on the limits hold, and what happens is the program's doing.
    os.write(report, b"limited\n" if kernel else b"partly limited\n")
    os.write(report, json.dumps(_outcome_of(given["program"])).encode())
    os._exit(0)


def _limit_by_kernel(folder: str) -> bool:
    """Apply the limits of `kernel_limits`, and forget ctypes, which could call the system."""
    beside = Path(__file__).with_name("kernel_limits.py")
    applied = runpy.run_path(str(beside))["limit_by_kernel"](folder)
    for name in [*sys.modules]:
        if name.split(".")[0] in ("ctypes", "_ctypes"):
            del sys.modules[name]
    return applied


def _outcome_of(program: str) -> tuple[str, str]:
    """Return the outcome and, for an error, the name of the exception."""
    module = types.ModuleType("program")
    sys.modules["program"] = module
    try:
        exec(compile(program, "program", "exec"), module.__dict__)
    except MemoryError:
        return "out of memory", ""
    except AssertionError:
        return "failed", ""
    except BaseException as error:
        return "error", type(error).__name__
    return "passed", ""


def _audit_hook(folder: str, files: int) -> Callable[[str, tuple[Any, ...]], None]:
    """Return a hook that refuses events of ``REFUSED`` and writes outside ``folder``.

    At most ``files`` files are opened for writing.
    """
    left = [files]
    realpath, fsdecode, inside = os.path.realpath, os.fsdecode, folder + os.sep

    def allowed(path: Any) -> bool:
        if isinstance(path, int):
            return True
        full = realpath(fsdecode(path))
        return full.startswith(inside) or full == os.devnull

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(REFUSED):
            raise PermissionError(f"{event} is refused")
        if event == "import" and arguments[0] in ("ctypes", "_ctypes"):
            raise PermissionError("import of ctypes is refused")
        if event == "open" and arguments[2] & WRITING:
            left[0] -= 1
            if left[0] < 0 or not allowed(arguments[0]):
                raise PermissionError(f"open for writing is refused: {arguments[0]!r}")
        for path in arguments[: WRITERS.get(event, 0)]:
            if not allowed(path):
                raise PermissionError(f"{event} is refused: {path!r}")

    return hook


if __name__ == "__main__":
    main()
