"""The second process has room for two sequences only; both must take two."""

import sys

import torch

from feldspar.recipe.sections.runtime import RuntimeSettings
from feldspar.runtime.distributed import Distribution
from feldspar.train.micro_batch import choose_micro_batch


def check(distribution: Distribution) -> None:
    """One write a line: processes share the pipe, and print may write its end of line apart."""
    room = (8, 2)[distribution.rank]
    tried = []

    def attempt(sequences: int) -> None:
        tried.append(sequences)
        if sequences > room:
            raise torch.cuda.OutOfMemoryError("out of memory")

    chosen = choose_micro_batch(8, 16, torch.device("cuda"), attempt)
    sys.stdout.write(f"rank {distribution.rank}: {chosen} of {tried}\n")


with Distribution.start(RuntimeSettings(device="cpu")) as distribution:
    check(distribution)
