"""``make oldest`` tests the lowest versions that the project admits, and no others."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = ("data", "fast", "hf", "report", "track-tensorboard", "search", "vision")
"""Extras that ``make oldest`` installs; it has no others of third parties."""


def test_the_constraints_are_the_lowest_versions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for name in EXTRAS for line in extras[name])]
    lowest = dict(line.split(">=") for line in wanted if not line.startswith("feldspar["))
    lines = (ROOT / ".ci" / "oldest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert pinned.keys() == lowest.keys()
    for name, version in pinned.items():
        assert re.fullmatch(rf"{re.escape(lowest[name])}(\.0)*", version), name
