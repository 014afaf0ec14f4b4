"""Choose what runs units: this process, a pool of processes, or a Ray cluster.

The results do not depend on the choice.
"""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from feldspar.core.errors import UserError
from feldspar.core.execution import Executor, SerialExecutor, available_cores, executor

Engine = Literal["serial", "processes", "ray"]
"""``serial``: this process; ``processes``: a pool on this machine; ``ray``: a cluster."""
_INTERPRETER_BYTES = 250_000_000
"""Memory that a worker uses before it has any data; numba's libraries are 100 MB of it."""


def workers_of(engine: Engine, workers: int) -> int:
    """Return the number of workers, where 0 means one for each core.

    For Ray 0 stays 0, because the size of a cluster is known only when it is reached.
    """
    return available_cores() if engine == "processes" and workers == 0 else workers


@contextmanager
def started(engine: Engine, workers: int, memory_bytes: int, work: Path) -> Generator[Executor]:
    """Return an executor of units that write below ``work`` and hold ``memory_bytes`` of data each.

    At most ``workers`` units run at a time; with Ray 0 means all processors of the cluster. Raises
    UserError for several workers in one process, SetupError when Ray or its cluster is missing.
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
