"""The memory of a machine and of a container."""

from pathlib import Path

import psutil

from feldspar.core.memory import memory_bytes


def test_the_smallest_limit_counts(tmp_path: Path) -> None:
    total = psutil.virtual_memory().total
    small, none = tmp_path / "small", tmp_path / "none"
    small.write_text("4096\n")
    none.write_text("max\n")
    assert memory_bytes((none, tmp_path / "absent")) == total
    assert memory_bytes((none, small)) == 4096
