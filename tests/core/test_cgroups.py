"""Quotas and memory limits of control groups: both versions, nested groups, and none at all."""

import os
from pathlib import Path

import psutil
import pytest

from feldspar.core import execution
from feldspar.core.cgroups import granted_processors, memory_bytes


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("membership", "files", "granted"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        # The smallest quota on the way up counts.
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3.0),
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000\n", "a/cpu.max": "300000 100000\n"}, 0.5),
        # A container that is told its name on the host, which it does not see.
        ("0::/docker/1f\n", {"cpu.max": "200000 100000\n"}, 2.0),
        (
            "4:cpu,cpuacct:/job\n3:memory:/job\n",
            {
                "cpu,cpuacct/job/cpu.cfs_quota_us": "400000\n",
                "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            4.0,
        ),
        (
            "4:cpu,cpuacct:/docker/1f\n",
            {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            1.0,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "1\n"}, None),
        ("nonsense", {"cpu.max": "many few\n"}, None),
        ("", {}, None),
    ],
)
def test_the_smallest_quota_counts(
    tmp_path: Path, membership: str, files: dict[str, str], granted: float | None
) -> None:
    write(tmp_path / "membership", membership)
    for name, text in files.items():
        write(tmp_path / "groups" / name, text)
    assert granted_processors(tmp_path / "groups", tmp_path / "membership") == granted


def test_no_list_of_groups_is_no_quota(tmp_path: Path) -> None:
    assert granted_processors(tmp_path / "groups", tmp_path / "absent") is None


@pytest.mark.parametrize(("granted", "cores"), [(0.5, 1), (1.9, 1), (1e6, None), (None, None)])
def test_available_cores_respect_affinity_and_quota(
    monkeypatch: pytest.MonkeyPatch, granted: float | None, cores: int | None
) -> None:
    monkeypatch.setattr(execution, "granted_processors", lambda: granted)
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert execution.available_cores() == (cores or bound)


def test_the_smallest_memory_limit_counts(tmp_path: Path) -> None:
    total = psutil.virtual_memory().total
    small, none = tmp_path / "small", tmp_path / "none"
    small.write_text("4096\n")
    none.write_text("max\n")
    assert memory_bytes((none, tmp_path / "absent")) == total
    assert memory_bytes((none, small)) == 4096
