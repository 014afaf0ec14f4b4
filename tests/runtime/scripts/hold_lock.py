"""Hold the lock of a run FOLDER, with a forked child that outlives us, until input comes."""

import os
import sys
import time
from pathlib import Path

from feldspar.runtime.run_folder import RunFolder

with RunFolder(Path(sys.argv[1])).lock():
    if os.fork() == 0:
        os.closerange(0, 3)
        time.sleep(20)
        os._exit(0)
    print("locked")
    sys.stdin.readline()
