"""Count steps until a signal comes; save and leave by the documented code: FOLDER, or `stubborn`.

`stubborn` never looks at the request, so that only a second signal ends it.
"""

import sys
import time
from pathlib import Path

import torch

from feldspar.runtime.checkpoint_store import CheckpointStore
from feldspar.runtime.signals import GracefulStop

torch.set_num_threads(1)
with GracefulStop() as stop:
    print("ready")
    asked = False
    step = 0
    while True:
        step += 1
        time.sleep(0.002)
        if sys.argv[1] == "stubborn":
            if stop.requested and not asked:
                asked = True
                print("asked")
        elif stop.requested_anywhere():
            CheckpointStore(Path(sys.argv[1])).save(step, {"w": torch.ones(1)}, {}, {"step": step})
            stop.exit()
