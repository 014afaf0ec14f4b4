"""Fork processes that save without end, kill -9 each at a random moment: FOLDER ROUNDS.

Checks after each that what is left is whole and of one piece, and not older than what the killed
process had reported as saved.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from feldspar.core.files import TEMPORARY_MARK
from feldspar.runtime.checkpoint_store import CheckpointStore

torch.set_num_threads(1)


def save_forever(folder: Path, tokens: int, report: int) -> None:
    store = CheckpointStore(folder)
    store.remove_incomplete()
    while True:
        tokens += 1
        tensors = {f"w{i}": torch.full((200, 100), float(tokens)) for i in range(4)}
        store.save(tokens, tensors, tensors, {"step": tokens})
        os.write(report, tokens.to_bytes(8, "little"))
        store.prune()


def one_round(folder: Path, tokens: int, moment: float) -> tuple[int, bool]:
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        save_forever(folder, tokens, write_end)
    os.close(write_end)
    reported = int.from_bytes(os.read(read_end, 8), "little")
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while data := os.read(read_end, 8):
        reported = int.from_bytes(data, "little")
    os.close(read_end)
    left = [entry for entry in folder.iterdir() if TEMPORARY_MARK in entry.name]
    checkpoint = CheckpointStore(folder).newest_valid()
    assert checkpoint is not None
    assert checkpoint.position >= reported
    assert checkpoint.state == {"step": checkpoint.position}
    for tensor in checkpoint.read_model().values():
        assert bool((tensor == checkpoint.position).all())
    return checkpoint.position, bool(left)


folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
moments = random.Random(0)
tokens, interrupted = 0, 0
for _ in range(rounds):
    tokens, half_written = one_round(folder, tokens, moments.uniform(0, 0.01))
    interrupted += half_written
CheckpointStore(folder).remove_incomplete()
assert not [entry for entry in folder.iterdir() if TEMPORARY_MARK in entry.name]
print(f"{rounds} killed, {interrupted} of them in the middle, {tokens} saved")
