"""The training sequences of a run's phases: sample n of a phase, whoever asks, whenever.

What a sample holds depends on the shards, the seed, the phase and those before it; not on the
number of processes, on batch sizes or on where a run was resumed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import numpy as np

from feldspar.core.errors import UserError
from feldspar.tokens.mixture import named_sampler
from feldspar.tokens.shards import ShardSet
from feldspar.tokens.shuffle import WindowOrder
from feldspar.tokens.stream import Cursor, SourceStream

Documents = Literal["concatenate", "mask"]


@dataclass(frozen=True)
class PhaseData:
    """What one phase reads."""

    name: str
    probabilities: dict[str, Fraction]
    """Share of sequences from each source; sums to 1."""
    context_length: int
    """Tokens of a sequence, its last label not counted."""
    sequences: int
    """How many sequences the phase reads."""
    documents: Documents = "concatenate"
    """``mask`` also yields document ids and positions for attention within documents."""


@dataclass(frozen=True)
class Sequences:
    """B sequences of context length L."""

    tokens: np.ndarray
    """(B, L+1) i64: inputs are all but the last column, labels all but the first."""
    document_ids: np.ndarray | None = None
    """(B, L) i32: 0, 1, ... for the documents of each sequence; only with ``mask``."""
    positions: np.ndarray | None = None
    """(B, L) i32: place within the document's part of the sequence; only with ``mask``."""


class SequenceReader:
    """Reads the sequences of ``phases``, one after the other, from one split of ``shards``.

    A later phase goes on in each source where the one before it stopped: at that very token when
    both have the same context length, else at the next document start. Within a phase the windows
    come shuffled (``shuffle``); with ``shuffled`` off in the stream's own order. Safe to use from
    several threads. Raises UserError for a source that the shards lack or that is too short.
    """

    def __init__(
        self,
        shards: ShardSet,
        phases: Sequence[PhaseData],
        seed: int,
        split: str = "train",
        shuffled: bool = True,
    ) -> None:
        self.phases = tuple(phases)
        self._seed = seed
        self._shuffled = shuffled
        mixtures = [named_sampler(phase.probabilities) for phase in self.phases]
        self._names = [names for names, _ in mixtures]
        self._samplers = [sampler for _, sampler in mixtures]
        self._streams: dict[str, SourceStream] = {}
        for index, phase in enumerate(self.phases):
            for name in self._names[index]:
                if name not in self._streams:
                    self._streams[name] = SourceStream(shards.read(split, name), name, seed)
                # Also the check that a whole epoch holds at least one window.
                stream = self._streams[name]
                stream.locate(Cursor(0, stream.tokens), phase.context_length, 0)
        self._start_cursors = lru_cache(maxsize=None)(self._cursors_at_start)
        self._orders = lru_cache(maxsize=None)(self._window_orders)

    def read(self, phase_index: int, start: int, stop: int) -> Sequences:
        """The sequences ``start`` to ``stop`` - 1 of a phase.

        Raises UserError when the phase does not have so many.
        """
        phase = self.phases[phase_index]
        if not 0 <= start <= stop <= phase.sequences:
            raise UserError(
                f"sequences {start} to {stop} lie outside phase {phase.name!r}, which has "
                f"{phase.sequences}"
            )
        length = phase.context_length
        masked = phase.documents == "mask"
        tokens = np.empty((stop - start, length + 1), np.int64)
        document_ids = np.empty((stop - start, length), np.int32) if masked else None
        positions = np.empty_like(document_ids) if document_ids is not None else None
        sources, ordinals = self._samplers[phase_index].sources_of(start, stop)
        cursors, names = self._start_cursors(phase_index), self._names[phase_index]
        orders = self._orders(phase_index)
        for row, (source, number) in enumerate(
            zip(sources.tolist(), ordinals.tolist(), strict=True)
        ):
            stream = self._streams[names[source]]
            place = orders[source].place(number) if self._shuffled else number
            cursor = stream.locate(cursors[names[source]], length, place)
            ends: list[int] | None = [] if masked else None
            stream.copy_window(cursor, tokens[row], ends)
            if ends is not None and document_ids is not None and positions is not None:
                _mark_documents(ends, document_ids[row], positions[row])
        return Sequences(tokens, document_ids, positions)

    def sources_of(self, phase_index: int, start: int, stop: int) -> list[str]:
        """The source of each of these sequences."""
        names = self._names[phase_index]
        sources, _ = self._samplers[phase_index].sources_of(start, stop)
        return [names[source] for source in sources.tolist()]

    def cursors(self, phase_index: int, sequences: int = 0) -> dict[str, Cursor]:
        """Where each source stands after so many sequences of a phase, sources of all phases."""
        phase = self.phases[phase_index]
        counts = self._samplers[phase_index].counts_before(sequences)
        cursors = dict(self._start_cursors(phase_index))
        for name, count in zip(self._names[phase_index], counts, strict=True):
            cursors[name] = self._streams[name].cursor_after(
                cursors[name], phase.context_length, count
            )
        return cursors

    def epochs(self, phase_index: int, sequences: int | None = None) -> dict[str, float]:
        """Passes over each source of a phase by so many of its sequences (default: all of them)."""
        phase = self.phases[phase_index]
        counts = self._samplers[phase_index].counts_before(
            phase.sequences if sequences is None else sequences
        )
        return {
            name: count * phase.context_length / self._streams[name].tokens
            for name, count in zip(self._names[phase_index], counts, strict=True)
        }

    def _window_orders(self, phase_index: int) -> list[WindowOrder]:
        """One order a source of the phase."""
        phase, cursors = self.phases[phase_index], self._start_cursors(phase_index)
        totals = self._samplers[phase_index].counts_before(phase.sequences)
        orders = []
        for name, total in zip(self._names[phase_index], totals, strict=True):
            stream, length = self._streams[name], phase.context_length
            first = stream.windows_left(cursors[name], length)
            per_epoch = stream.windows_left(Cursor(), length)
            orders.append(WindowOrder(self._seed, name, phase_index, first, per_epoch, int(total)))
        return orders

    def _cursors_at_start(self, phase_index: int) -> dict[str, Cursor]:
        if phase_index == 0:
            return dict.fromkeys(self._streams, Cursor())
        before, phase = self.phases[phase_index - 1], self.phases[phase_index]
        cursors = self.cursors(phase_index - 1, before.sequences)
        if before.context_length == phase.context_length:
            return cursors
        return {name: self._streams[name].at_document(c) for name, c in cursors.items()}


def _mark_documents(ends: list[int], document_ids: np.ndarray, positions: np.ndarray) -> None:
    start = 0
    for number, end in enumerate(ends):
        document_ids[start:end] = number
        count = min(end, len(positions)) - start
        positions[start:end] = np.arange(max(0, count))
        start = end
