"""A few faults of each class, each time; all of them by ``make faults``.

They run in a process of their own, which forks for each command: nothing may have used torch's
threads in it before.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CLASSES = (
    *("kills", "flips", "truncations", "deletions", "permissions", "disk full", "signals"),
    *("links", "recipes", "malformed"),
)


@pytest.fixture(scope="session")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The verdicts of the fast part."""
    file = tmp_path_factory.mktemp("faults") / "verdicts.json"
    command = [sys.executable, "-m", "tests.faults", "--fast", "--json", str(file)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert file.is_file(), result.stdout + result.stderr
    return json.loads(file.read_text())


@pytest.mark.parametrize("kind", CLASSES)
def test_nothing_is_lost_silent_or_a_traceback(kind: str, verdicts: list[dict[str, Any]]) -> None:
    own = [verdict for verdict in verdicts if verdict["kind"] == kind]
    assert own, "the class has faults"
    assert [verdict for verdict in own if verdict["problems"]] == []
