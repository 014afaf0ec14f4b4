"""What runs the units of the stages; they know nothing of it, and their results are the same."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from feldspar.core.errors import UserError
from feldspar.core.execution import Executor, SerialExecutor, executor

Engine = Literal["serial", "processes", "ray"]
"""``serial``: this process; ``processes``: a pool on this machine; ``ray``: a cluster."""
_INTERPRETER_BYTES = 250_000_000
"""What a worker holds before it has any data; 100 MB of it are numba's libraries."""


@contextmanager
def started(engine: Engine, workers: int, memory_bytes: int, work: Path) -> Generator[Executor]:
    """An executor of units that write below ``work`` and hold ``memory_bytes`` of data each.

    At most ``workers`` run at a time; with ray 0 stands for all processors of the cluster.
    Raises UserError for several workers in one process; SetupError when Ray or its cluster is
    missing.
    """
    if engine == "ray":
        from feldspar.core.cluster import ray_executor

        with ray_executor(workers, memory_bytes + _INTERPRETER_BYTES, work) as pool:
            yield pool
    elif engine == "processes":
        with executor(workers) as pool:
            yield pool
    elif workers > 1:
        raise UserError("workers: the serial engine runs one unit at a time", found=workers)
    else:
        yield SerialExecutor()
