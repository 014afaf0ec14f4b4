"""Examine the machine and the installation: what is there, what to mend, and by which command."""

import locale
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from feldspar import __version__
from feldspar.core.cgroups import granted_processors, installed_memory_bytes, memory_bytes
from feldspar.core.execution import available_cores
from feldspar.core.files import cache_folder
from feldspar.core.machine import processor
from feldspar.core.requirements import USES, Extra, admitted_python, examine, own_requirements

QUICKSTART_DISK_BYTES = 2 * 10**9
QUICKSTART_MEMORY_BYTES = 2 * 10**9
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
"""A file that NVIDIA's driver makes on Linux."""


@dataclass(frozen=True)
class Finding:
    """Something to mend."""

    what: str
    do: str
    """A command to run."""
    stops_quickstart: bool = False


@dataclass(frozen=True)
class Examination:
    """Facts of a machine, and what to mend on it."""

    machine: dict[str, str]
    extras: list[Extra]
    findings: list[Finding]

    @property
    def quickstart_runs(self) -> bool:
        """Tell whether the quickstart can run here."""
        return not any(finding.stops_quickstart for finding in self.findings)

    def values(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "quickstart_runs": self.quickstart_runs,
            "machine": self.machine,
            "extras": {
                extra.name: {
                    "ready": not extra.unfit,
                    "lacks": [str(package) for package in extra.unfit],
                    "serves": USES[extra.name],
                    "install": extra.install,
                }
                for extra in self.extras
            },
            "findings": [asdict(finding) for finding in self.findings],
        }


def examine_machine(folder: Path) -> Examination:
    """Examine the machine for commands that are given in ``folder``."""
    requirements = own_requirements()
    known = requirements or []
    torch_facts, torch_findings = _torch()
    findings = [
        *python_findings(platform.python_version()),
        *package_findings(requirements),
        *torch_findings,
        *place_findings(folder, cache_folder()),
        *memory_findings(memory_bytes()),
        *thread_findings(available_cores(), os.environ.get("OMP_NUM_THREADS")),
        *encoding_findings(sys.stdout.encoding or "utf-8", sys.getfilesystemencoding()),
    ]
    machine = _machine_facts(folder) | torch_facts
    extras = [examine(known, name) for name in USES] if requirements is not None else []
    return Examination(machine, extras, findings)


def _machine_facts(folder: Path) -> dict[str, str]:
    granted, installed = memory_bytes(), installed_memory_bytes()
    memory = "unknown" if granted is None else _gigabytes(granted)
    if granted is not None and installed is not None and granted < installed:
        memory += f" (a limit of the container; the machine has {_gigabytes(installed)})"
    cores, quota = str(available_cores()), granted_processors()
    if available_cores() < (os.cpu_count() or 1):
        limit = "processors bound to this process" if quota is None else f"a quota of {quota:g}"
        cores += f" of {os.cpu_count()} ({limit})"
    return {
        "feldspar": f"{__version__} in {Path(__file__).parents[1]}",
        "python": f"{platform.python_version()}, {sys.executable}",
        "processor": processor(),
        "cores": cores,
        "load": " ".join(f"{value:.1f}" for value in os.getloadavg()),
        "memory": memory,
        "free disk": f"{_gigabytes(shutil.disk_usage(folder).free)} in {folder}",
        "cache": str(cache_folder()),
        "language": f"{locale.setlocale(locale.LC_CTYPE)}, {sys.stdout.encoding}",
    }


def _gigabytes(amount: float) -> str:
    return f"{amount / 1e9:.1f} GB"


def python_findings(version: str) -> Iterator[Finding]:
    """Find a Python that feldspar does not admit."""
    admitted = admitted_python()
    if not admitted.contains(version, prereleases=True):
        yield Finding(
            f"Python {version} is too old: feldspar needs {admitted}",
            "python3.11 -m venv .venv, and install feldspar there",
            stops_quickstart=True,
        )


def package_findings(requirements: list[str] | None) -> Iterator[Finding]:
    """Find packages that the quickstart lacks, and packages of versions that are not admitted."""
    if requirements is None:
        yield Finding(
            "feldspar runs from a folder that was not installed, so what it needs is not known",
            "pip install -e '.[quickstart]'",
        )
        return
    needed = {"": "feldspar", "quickstart": "the quickstart"}
    told = set()
    for name in ("", *USES):
        extra = examine(requirements, name)
        unfit = [p for p in extra.unfit if name in needed or p.version is not None]
        unfit = [p for p in unfit if p.name not in told]
        told |= {package.name for package in unfit}
        if unfit:
            listed = ", ".join(map(str, unfit))
            who = needed.get(name, f"the extra {name}")
            yield Finding(f"{who} needs {listed}", extra.install, name in needed)


def _torch() -> tuple[dict[str, str], list[Finding]]:
    """Return what torch is and sees, and what to mend on it."""
    try:
        import torch
    except (ImportError, OSError) as error:
        finding = Finding(
            f"torch cannot be imported: {error}", "pip install --force-reinstall torch", True
        )
        return {"torch": "cannot be imported"}, [finding]
    from feldspar.runtime.device import gpu_names

    built_for = torch.version.cuda or torch.version.hip
    devices = gpu_names()
    facts = {
        "torch": f"{torch.__version__}, " + (f"built for {built_for}" if built_for else "CPU only"),
        "threads": str(torch.get_num_threads()),
        "gpu": ", ".join(devices) or "none that torch sees",
    }
    return facts, list(gpu_findings(built_for, len(devices), NVIDIA_DRIVER.exists()))


def gpu_findings(built_for: str | None, devices: int, has_driver: bool) -> Iterator[Finding]:
    """Find a GPU that torch does not use. ``built_for`` is the version of CUDA of its build."""
    if devices or not has_driver:
        return
    if built_for is None:
        yield Finding(
            "the machine has an NVIDIA driver, but this torch was built for processors only",
            "pip install --force-reinstall torch",
        )
    elif os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        yield Finding("CUDA_VISIBLE_DEVICES hides every GPU", "unset CUDA_VISIBLE_DEVICES")
    else:
        yield Finding(
            f"the machine has an NVIDIA driver, but torch, built for CUDA {built_for}, sees no GPU:"
            " the driver may be older, or the container may not see the device",
            "nvidia-smi",
        )


def place_findings(folder: Path, cache: Path) -> Iterator[Finding]:
    """Find folders that cannot be written, and a disk that is too full for the quickstart."""
    if not is_writable(folder):
        yield Finding(f"{folder} cannot be written", "cd ~", stops_quickstart=True)
    if not is_writable(cache):
        yield Finding(
            f"the cache {cache} cannot be written, so downloads fail",
            "export FELDSPAR_CACHE=/tmp/feldspar",
            stops_quickstart=True,
        )
    free = shutil.disk_usage(folder).free
    if free < QUICKSTART_DISK_BYTES:
        yield Finding(
            f"{_gigabytes(free)} are free in {folder}; the quickstart needs"
            f" {_gigabytes(QUICKSTART_DISK_BYTES)}",
            f"du -h --max-depth 1 {folder} | sort -h",
            stops_quickstart=True,
        )


def is_writable(folder: Path) -> bool:
    """Tell whether files can be made in a folder, or in the one that will hold it."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def memory_findings(granted: int | None) -> Iterator[Finding]:
    """Find too little memory for the quickstart."""
    if granted is not None and granted < QUICKSTART_MEMORY_BYTES:
        yield Finding(
            f"{_gigabytes(granted)} of memory are granted; the quickstart needs"
            f" {_gigabytes(QUICKSTART_MEMORY_BYTES)}",
            "free -h",
            stops_quickstart=True,
        )


def thread_findings(cores: int, chosen: str | None) -> Iterator[Finding]:
    """Find a number of threads, set by OMP_NUM_THREADS, that is not the number of cores."""
    if chosen is not None and chosen.isdecimal() and int(chosen) != cores:
        change = "leaves cores idle" if int(chosen) < cores else "makes threads wait for each other"
        yield Finding(
            f"OMP_NUM_THREADS is {chosen}, with {cores} cores, which {change}",
            "unset OMP_NUM_THREADS",
        )


def encoding_findings(output: str, files: str) -> Iterator[Finding]:
    """Find encodings of the output and of names of files that do not hold all characters."""
    encodings = {output.lower(), files.lower()}
    lacking = sorted(name for name in encodings if name.replace("-", "") != "utf8")
    if lacking:
        yield Finding(
            f"text is written in {', '.join(lacking)}, not in UTF-8, so characters are escaped",
            "export LC_ALL=C.UTF-8 PYTHONUTF8=1",
        )
