"""Join another process and wait for it; rank 1 dies instead. Prints what rank 0 tells a person."""

import os

from feldspar.core.system_errors import translated
from feldspar.recipe.sections.runtime import DdpDistribution, RuntimeSettings
from feldspar.runtime.collectives import barrier, on_each, rank
from feldspar.runtime.distributed import Distribution

with Distribution.start(RuntimeSettings(device="cpu", distribution=DdpDistribution())):
    barrier()
    if rank() == 1:
        os._exit(9)
    try:
        on_each(lambda: 1)
    except Exception as error:
        print(translated(error))
