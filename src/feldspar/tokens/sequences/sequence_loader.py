"""Return training sequences as tensors; a background thread reads them ahead of the model."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch

from feldspar.core.errors import InternalError
from feldspar.tokens.sequences.phase_sequences import Sequences


class Reader(Protocol):
    """A reader of the sequences of a run's phases."""

    def read(self, phase_index: int, start: int, stop: int) -> Sequences:
        """Return the sequences ``start`` to ``stop`` - 1 of a phase."""
        ...


@dataclass(frozen=True)
class SequenceTensors:
    """The sequences ``start`` to ``stop`` - 1 of a phase; B = stop - start, context length L."""

    phase_index: int
    start: int
    stop: int
    inputs: torch.Tensor
    """(B, L) int64."""
    labels: torch.Tensor
    """(B, L) int64: the token after each input."""
    document_ids: torch.Tensor | None = None
    """(B, L) int32; only in phases with ``mask`` and phases of pairs."""
    positions: torch.Tensor | None = None
    """(B, L) int32; only in phases with ``mask``."""
    label_mask: torch.Tensor | None = None
    """(B, L) bool, False where a label does not count; only with fill-in-the-middle and for pairs.
    """
    cut_tokens: int = 0
    """Number of tokens that fill-in-the-middle pushed out of these sequences."""


class PrefetchingLoader:
    """Return requested sequences in the order of the requests.

    Call ``request`` ahead, then ``take`` once for each request. The answers depend only on the
    requests, not on threads or time. With ``workers`` 0 there are no background threads. An error
    while reading is raised by the ``take`` of the same request.
    """

    def __init__(self, reader: Reader, workers: int = 1, pin_memory: bool = False) -> None:
        self._reader = reader
        self._pin_memory = pin_memory
        self._pool = ThreadPoolExecutor(workers, "feldspar-data") if workers else None
        self._asked: deque[tuple[int, int, int]] = deque()
        self._answers: deque[Future[SequenceTensors]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def waiting(self) -> int:
        """Number of requests that are not taken yet."""
        return len(self._asked)

    def request(self, phase_index: int, start: int, stop: int) -> None:
        """Ask for the sequences ``start`` to ``stop`` - 1 of a phase; returns at once."""
        self._asked.append((phase_index, start, stop))
        if self._pool is not None:
            self._answers.append(self._pool.submit(self._read, phase_index, start, stop))

    def take(self) -> SequenceTensors:
        """Return the answer to the oldest request, waiting for it; raise the error of reading it,
        if any."""
        if not self._asked:
            raise InternalError("sequences were taken from the loader without a request")
        request = self._asked.popleft()
        return self._answers.popleft().result() if self._pool else self._read(*request)

    def clear(self) -> None:
        """Forget all requests that are not taken yet."""
        for answer in self._answers:
            answer.cancel()
        self._asked.clear()
        self._answers.clear()

    def close(self) -> None:
        """Stop the background threads."""
        self.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True)

    def _read(self, phase_index: int, start: int, stop: int) -> SequenceTensors:
        sequences = self._reader.read(phase_index, start, stop)
        tokens = sequences.tokens
        return SequenceTensors(
            phase_index,
            start,
            stop,
            inputs=self._tensor(np.ascontiguousarray(tokens[:, :-1])),
            labels=self._tensor(np.ascontiguousarray(tokens[:, 1:])),
            document_ids=self._optional(sequences.document_ids),
            positions=self._optional(sequences.positions),
            label_mask=self._optional(sequences.label_mask),
            cut_tokens=sequences.cut_tokens,
        )

    def _optional(self, array: np.ndarray | None) -> torch.Tensor | None:
        return None if array is None else self._tensor(array)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory() if self._pin_memory else tensor
