"""Run units of work as tasks of a Ray cluster, and check the folder that its machines share.

Ray gives what the units need and no more: placement, memory requests, and another attempt when a
worker or a machine is lost. Data go through files, never through its object store.
"""

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Generic

from feldspar import __version__
from feldspar.core.errors import RunError, SetupError, missing_extra
from feldspar.core.execution import Executor, Result, Unit, available_cores
from feldspar.core.files import write_atomically

ADDRESS_VARIABLE = "RAY_ADDRESS"
ATTEMPTS_AGAIN = 3
"""The number of times that a lost unit is given to another worker."""
_MARK_NAME = "shared"
_ANSWER_SECONDS = 10
_OBJECT_STORE_BYTES = 128 << 20
"""Size of the object store of a cluster started here, which carries counts and small arrays."""


@dataclass(frozen=True)
class OnSharedFolder(Generic[Unit, Result]):
    """A function that first checks that its machine sees the folder and has the same feldspar."""

    function: Callable[[Unit], Result]
    folder: Path

    def __call__(self, unit: Unit) -> Result:
        """Apply the function.

        Raises SetupError when the machine does not see the folder, or has another version of
        feldspar than the machine that gives out the units.
        """
        here = f"machine {socket.gethostname()} of the cluster"
        try:
            version = (self.folder / _MARK_NAME).read_text(encoding="utf-8")
        except OSError as error:
            raise SetupError(
                f"{here} does not see {self.folder}",
                do="put the output on a file system that all machines mount under the same path",
            ) from error
        if version != __version__:
            raise SetupError(
                f"{here} has feldspar {__version__}, this one {version}",
                do="install the same version on all machines",
            )
        return self.function(unit)


class RayExecutor:
    """An executor that runs units as tasks. It submits only as many as keep the cluster busy."""

    elsewhere = True

    def __init__(self, ray: ModuleType, workers: int, memory_bytes: int, folder: Path) -> None:
        self._ray = ray
        self._workers = workers
        self._folder = folder
        self._run = ray.remote(_applied).options(
            num_cpus=1,
            memory=memory_bytes,
            max_retries=ATTEMPTS_AGAIN,
            scheduling_strategy="SPREAD",
        )

    def map(self, function: Callable[[Unit], Result], units: Iterable[Unit]) -> Iterator[Result]:
        """Apply ``function`` to each unit, lazily."""
        checked = OnSharedFolder(function, self._folder)
        # Asked anew for each stage: clusters grow and shrink.
        workers = self._workers or max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        pending: deque[Any] = deque()
        for unit in units:
            pending.append(self._run.remote(checked, unit))
            if len(pending) >= 2 * workers:
                yield self._result(pending.popleft())
        while pending:
            yield self._result(pending.popleft())

    def _result(self, reference: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.RayError as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RunError(
                "the cluster lost a unit of work for good",
                found=reason,
                do="most often memory ran out: give the same command again with fewer workers, "
                "or look at the cluster (ray status)",
            ) from error


def _applied(function: Callable[[Unit], Result], unit: Unit) -> Result:
    return function(unit)


@contextmanager
def ray_executor(workers: int, memory_bytes: int, folder: Path) -> Generator[Executor]:
    """Return an executor on the cluster that RAY_ADDRESS names, or on one started here.

    At most ``workers`` units run at a time; 0 means one for each processor. Each unit asks for one
    processor and ``memory_bytes``. All machines must see ``folder``. Raises SetupError when Ray is
    not installed, when the cluster cannot be reached, or when none of its machines has that much
    memory.
    """
    try:
        import ray
    except ImportError as error:
        raise missing_extra("ray", "scale") from error
    own = not ray.is_initialized()
    if own:
        _connect(ray, workers)
    try:
        _check_memory(ray, memory_bytes)
        write_atomically(folder / _MARK_NAME, __version__)
        yield RayExecutor(ray, workers, memory_bytes, folder)
    finally:
        if own:
            ray.shutdown()


def _connect(ray: ModuleType, workers: int) -> None:
    address = os.environ.get(ADDRESS_VARIABLE) or "local"
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == "local":
        options["num_cpus"] = workers or available_cores()
        options["object_store_memory"] = _OBJECT_STORE_BYTES
        options["include_dashboard"] = False
    # A cluster started here sends no usage statistics.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _knock(address)
        ray.init(address, **options)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SetupError(
            "a Ray cluster could not be started"
            if address == "local"
            else f"no Ray cluster at {address}",
            found=reason,
            do=f"start one with ray start --head, or correct or unset {ADDRESS_VARIABLE}",
        ) from error


def _knock(address: str) -> None:
    # Ray itself tries for minutes to reach a machine that does not answer.
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()


def _check_memory(ray: ModuleType, wanted: int) -> None:
    # A task that no machine can hold would wait for ever.
    offered = [
        int(node["Resources"].get("memory", 0))
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
    ]
    largest = max(offered, default=0)
    if largest < wanted:
        raise SetupError(
            f"no machine of the Ray cluster offers {wanted / 1e9:.2f} GB of memory to a task",
            found=f"at most {largest / 1e9:.2f} GB",
            do="give a smaller --memory, or start the cluster with more (ray start --memory)",
        )
