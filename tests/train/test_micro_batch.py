"""The number of sequences that fit is tried on CUDA, and is the same on each process."""

from pathlib import Path

import pytest
import torch

from feldspar.core.errors import SetupError
from feldspar.train.micro_batch import choose_micro_batch
from tests.processes import run_together

CUDA = torch.device("cuda")


def room_for(room: int, tried: list[int], sequences: int) -> None:
    tried.append(sequences)
    if sequences > room:
        raise torch.cuda.OutOfMemoryError("out of memory")


def test_the_first_half_that_fits_is_taken() -> None:
    tried: list[int] = []
    assert choose_micro_batch(12, 16, CUDA, lambda n: room_for(4, tried, n)) == 3
    assert tried == [12, 6, 3]


def test_not_even_one_sequence_is_an_error_of_the_machine() -> None:
    with pytest.raises(SetupError, match="not even one sequence of 16 tokens"):
        choose_micro_batch(4, 16, CUDA, lambda n: room_for(0, [], n))


def test_processes_of_different_memory_take_what_fits_on_each() -> None:
    script = Path(__file__).parent / "scripts" / "different_memory.py"
    result = run_together(2, [script])
    assert result.returncode == 0, result.stderr
    assert sorted(result.stdout.splitlines()) == [
        "rank 0: 2 of [8, 4, 2]",
        "rank 1: 2 of [8, 4, 2]",
    ]
