"""Requirements, read from lines as the metadata holds them, against what is installed."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

from feldspar.cli.main import application
from feldspar.core.requirements import USES, examine

ROOT = Path(__file__).parents[2]
OF_DEVELOPERS = {"all", "bench", "check", "dist", "dev", "docs"}
HERE = version("numpy")
LINES = [
    "numpy>=1",
    "absent>=2",
    'pytest>=1; extra == "speed"',
    f'numpy>{HERE}; extra == "new"',
    'gone; extra == "more"',
    'feldspar[speed,more]; extra == "both"',
    'elsewhere; sys_platform == "plan9" and extra == "speed"',
]


@pytest.mark.parametrize(
    ("extra", "packages", "unfit", "command"),
    [
        ("", ["numpy>=1", "absent>=2"], ["absent>=2"], "pip install feldspar"),
        ("speed", ["pytest>=1"], [], "pip install 'feldspar[speed]'"),
        ("both", ["pytest>=1", "gone"], ["gone"], "pip install 'feldspar[both]'"),
        ("new", [f"numpy>{HERE}"], [f"numpy>{HERE}"], "pip install 'feldspar[new]'"),
    ],
)
def test_an_extra_is_examined_with_those_that_it_names(
    extra: str, packages: list[str], unfit: list[str], command: str
) -> None:
    found = examine(LINES, extra)
    assert [f"{p.name}{p.requirement.specifier}" for p in found.packages] == packages
    assert [f"{p.name}{p.requirement.specifier}" for p in found.unfit] == unfit
    assert found.install == command
    assert all(str(p).endswith(f"(found {HERE})") for p in found.unfit if p.version)


def test_every_extra_names_the_commands_that_it_serves() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = set(tomllib.loads(text)["project"]["optional-dependencies"])
    assert set(USES) == extras - OF_DEVELOPERS
    commands = set(typer.main.get_command(application()).commands)  # type: ignore[attr-defined]
    for name, use in USES.items():
        before = re.split(r": |, and ", use)[0]
        named = {phrase.split()[0] for phrase in before.split(", ")}
        assert named <= commands, name
