"""A process of a run dies: the others say so."""

import os
import socket
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent / "scripts" / "lost_peer.py"


def test_the_survivor_says_that_a_process_was_lost() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT)],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    (out, err), _ = (process.communicate(timeout=120) for process in processes)
    assert out.startswith("the connection to another process of this run was lost"), out + err
    assert "newest checkpoint" in out
    assert processes[0].returncode == 0 and processes[1].returncode == 9
