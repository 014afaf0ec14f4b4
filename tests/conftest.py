"""What every test runs under: one thread, no network, the same examples each time."""

import os
import socket
import tempfile
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

settings.register_profile(
    "feldspar",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("feldspar")


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
