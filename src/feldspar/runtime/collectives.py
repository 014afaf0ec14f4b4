"""Exchange JSON, sums of floats and errors between processes.

Nothing is pickled. All functions work in a single process too. A function with "each process" in
its description must be called by all processes.
"""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from feldspar.core.errors import (
    FeldsparError,
    InternalError,
    RunError,
    SetupError,
    UserError,
    shorten,
)
from feldspar.core.system_errors import translated

Result = TypeVar("Result")

_ERRORS = {error.__name__: error for error in (UserError, SetupError, RunError, InternalError)}


def world_size() -> int:
    """Return the number of processes of this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Tell whether this process writes what only one process writes."""
    return rank() == 0


def barrier() -> None:
    """Wait until each process has called this."""
    if world_size() > 1:
        dist.all_reduce(torch.zeros(1))


def all_reduce_sum(values: list[float]) -> list[float]:
    """Return the sums over all processes, element by element, in float64, in one message."""
    if world_size() == 1:
        return values
    vector = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(vector)
    return vector.tolist()


def any_process(flag: bool) -> bool:
    """Tell whether ``flag`` is set on at least one process; the answer is the same on each
    process."""
    return all_reduce_sum([float(flag)])[0] > 0


def from_first(tensor: torch.Tensor) -> torch.Tensor:
    """Return the first process's tensor, on the CPU; that of each process has its shape and
    type."""
    if world_size() > 1:
        dist.broadcast(tensor, 0)
    return tensor


def gather_json(value: Any) -> list[Any]:
    """Return each process's JSON value, in order of rank, on each process."""
    if world_size() == 1:
        return [value]
    data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(world_size())]
    dist.all_gather(lengths, torch.tensor([data.numel()]))
    sizes = [int(length) for length in lengths]
    padded = torch.zeros(max(sizes), dtype=torch.uint8)
    padded[: data.numel()] = data
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    texts = [bytes(part[:size].numpy()) for part, size in zip(parts, sizes, strict=True)]
    return [json.loads(text) for text in texts]


def on_each(work: Callable[[], Any]) -> list[Any]:
    """Do ``work`` on each process and return all its JSON results.

    An error on one process is raised on all of them, so that none waits for it. The process with
    the error raises the error itself; the others raise one of the same kind that names the rank.
    """
    result, failure, told = None, None, None
    try:
        result = work()
    except Exception as error:
        failure = translated(error) or error
        failure.__cause__ = error if failure is not error else error.__cause__
        told = [_kind_of(failure), shorten(str(failure) or repr(failure), 500)]
    answers = gather_json([told, result])
    if failure is not None:
        raise failure
    for other, (problem, _) in enumerate(answers):
        if problem is not None:
            kind, what = problem
            raise _ERRORS[kind](f"rank {other} failed: {what}")
    return [answer for _, answer in answers]


def on_first(work: Callable[[], Result]) -> Result:
    """Do ``work`` only on rank 0; each process gets its JSON result or its error."""
    return on_each(lambda: work() if is_first() else None)[0]


def _kind_of(error: Exception) -> str:
    kind = type(error) if isinstance(error, FeldsparError) else RunError
    return kind.__name__ if kind.__name__ in _ERRORS else RunError.__name__
