"""The live page follows a process that really runs, and ends with it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from feldspar.core.errors import UserError
from feldspar.core.machine import host_digest
from feldspar.report.watch import watch_runs

TRAINER = r"""
import json, os, sys
from feldspar.core.machine import host_digest
from pathlib import Path
run = Path(sys.argv[1])
begun = {"event": "started", "length": 40, "process": os.getpid(), "host": host_digest()}
(run / "events.jsonl").write_text(json.dumps(begun) + "\n")
print("begun", flush=True)
for line in sys.stdin:
    with (run / "metrics.jsonl").open("a") as file:
        step = int(line)
        file.write(json.dumps({"step": step, "tokens": 10 * step, "train/loss": 3.0}) + "\n")
    print("written", flush=True)
"""


def refreshes(page: Path) -> bool:
    return "data-refresh" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(("rest", "state"), [("3\n4\n", "finished"), ("3\n", "unfinished")])
def test_the_page_follows_a_process_until_it_ends(tmp_path: Path, rest: str, state: str) -> None:
    page = tmp_path / "report.html"
    seen: list[str] = []
    command = [sys.executable, "-c", TRAINER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as trainer:
        assert trainer.stdin is not None and trainer.stdout is not None
        orders, answers = trainer.stdin, trainer.stdout

        def work(_: float) -> None:
            """Let the process take a step, or end it, in place of the time between two looks."""
            if page.is_file():
                assert refreshes(page)
                seen.append(page.read_text(encoding="utf-8"))
            if len(seen) < 2:
                orders.write(f"{len(seen) + 1}\n")
                orders.flush()
                answers.readline()
            else:
                orders.write(rest)
                orders.close()
                trainer.wait()

        answers.readline()
        assert watch_runs([tmp_path], pause=work) == page
    assert "training</span>" in seen[0] and "25 % of 40" in seen[0] and "50 % of 40" in seen[1]
    assert f"{state}</span>" in page.read_text(encoding="utf-8") and not refreshes(page)


def test_an_interrupt_ends_with_130_and_a_page_that_rests(tmp_path: Path) -> None:
    mine = {"process": os.getpid(), "host": host_digest()}
    begun = {"event": "started", "length": 40} | mine
    (tmp_path / "events.jsonl").write_text(json.dumps(begun) + "\n")
    step = {"step": 1, "tokens": 10, "train/loss": 3.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(step) + "\n")
    command = [sys.executable, "-m", "feldspar", "report", str(tmp_path), "--watch"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stderr is not None
        assert "follows the run" in watching.stderr.readline()
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 130
    assert not refreshes(tmp_path / "report.html")


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        watch_runs([tmp_path])
