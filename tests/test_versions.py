"""The versions that are pinned: the lowest for ``make oldest``, one of each tool that checks."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = (
    "data",
    "fast",
    "hf",
    "report",
    "chat",
    "track-tensorboard",
    "sparse",
    "search",
    "lang",
    "vision",
    "detection",
    "gguf",
)
"""Extras that ``make oldest`` installs; it has no others of third parties."""
CHECKERS = {"ruff", "pyrefly"}


def project() -> dict[str, list[str]]:
    """The project's requirements by extra; the ones of every installation under no name."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"": found["dependencies"], **found["optional-dependencies"]}


def test_the_constraints_are_the_lowest_versions() -> None:
    extras = project()
    wanted = [line for name in ("", *EXTRAS) for line in extras[name]]
    lowest = dict(line.split(">=") for line in wanted if not line.startswith("feldspar["))
    lines = (ROOT / ".ci" / "oldest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert pinned.keys() == lowest.keys()
    for name, version in pinned.items():
        assert re.fullmatch(rf"{re.escape(lowest[name])}(\.0)*", version), name


def test_the_tools_that_check_have_one_version_in_one_place() -> None:
    extras = project()
    pinned = {line.split("==")[0] for line in extras.pop("check") if "==" in line}
    assert pinned == CHECKERS
    names = [re.split(r"[^\w-]", line)[0] for lines in extras.values() for line in lines]
    assert not CHECKERS & {*names}
    assert any("check" in line for line in extras["dev"])
