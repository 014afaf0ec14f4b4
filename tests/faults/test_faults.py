"""A few faults of each class, each time; all of them by ``make faults``.

They run in a process of their own, which forks for each command: nothing may have used torch's
threads in it before. One test, so that workers of pytest do not each run them all.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLASSES = {
    *("kills", "flips", "truncations", "deletions", "permissions", "disk full", "signals"),
    *("links", "recipes", "malformed"),
}


@pytest.mark.slow
@pytest.mark.several_cores
def test_nothing_is_lost_silent_or_a_traceback(tmp_path: Path) -> None:
    file = tmp_path / "verdicts.json"
    command = [sys.executable, "-m", "tests.faults", "--fast", "--json", str(file)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert file.is_file(), result.stdout + result.stderr
    verdicts = json.loads(file.read_text())
    assert {verdict["kind"] for verdict in verdicts} == CLASSES
    assert [verdict for verdict in verdicts if verdict["problems"]] == [], result.stdout
    assert result.returncode == 0
