"""Describe the machine that figures were measured on."""

import hashlib
import platform
import socket
from importlib.metadata import version
from pathlib import Path

from feldspar.core.cgroups import installed_memory_bytes
from feldspar.core.execution import available_cores


def machine() -> dict[str, str | int | float]:
    """Return the processor, cores, memory and versions that figures depend on."""
    memory_bytes = installed_memory_bytes() or 0
    return {
        "processor": processor(),
        "cores": available_cores(),
        "memory_gib": round(memory_bytes / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def host_digest() -> str:
    """Return a digest of this machine's name: a record that is released must not tell the name."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:16]


def processor() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
