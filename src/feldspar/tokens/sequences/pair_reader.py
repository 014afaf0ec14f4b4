"""Read the training sequences of a phase of pairs, each by its number.

Pairs are packed into rows once: the longest first, each into the fullest row with room. A row is
padded to its end; attention and positions stay within a pair. Rows are shuffled again in each
epoch, by a stream of its own, so the order depends only on the seed, the phase and the epoch.
"""

import hashlib
from bisect import bisect_left, insort
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from feldspar.core.streams import numpy_stream
from feldspar.tokens.sequences.pairs import Pair, PairLayout, sequences_of
from feldspar.tokens.sequences.phase_sequences import Sequences


class PairReader:
    """Rows of ``layout.longest`` tokens that hold pairs.

    With ``on_target`` only the labels of targets and of their ends count, else those of sources
    too. A label that is a soft vector or the first token of another pair never counts. Safe to use
    from several threads. Raises UserError for a pair that is too long.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        layout: PairLayout,
        *,
        seed: int,
        phase: str,
        on_target: bool,
    ) -> None:
        self.layout = layout
        self._seed, self._phase, self._on_target = seed, phase, on_target
        self._pairs = sequences_of(pairs, layout)
        lengths = [len(tokens) for tokens, _ in self._pairs]
        self._rows = pack_rows(lengths, layout.longest)
        self._order = lru_cache(maxsize=4)(self._order_of)

    @property
    def n_pairs(self) -> int:
        """Number of pairs in an epoch."""
        return len(self._pairs)

    @property
    def n_rows(self) -> int:
        """Number of sequences in an epoch."""
        return len(self._rows)

    @property
    def digest(self) -> str:
        """Digest of all tokens and of the beginnings of the targets."""
        state = hashlib.sha256()
        for tokens, begin in self._pairs:
            state.update(np.array([len(tokens), begin]).astype("<i8").tobytes())
            state.update(tokens.astype("<i8").tobytes())
        return state.hexdigest()

    def read(self, start: int, stop: int) -> Sequences:
        """Return the sequences ``start`` to ``stop`` - 1 of the phase, epoch after epoch."""
        width = self.layout.longest
        tokens = np.full((stop - start, width), self.layout.end_of_document_id, np.int64)
        documents = np.zeros((stop - start, width), np.int32)
        counts = np.zeros((stop - start, width), bool)
        for row, number in enumerate(range(start, stop)):
            epoch, place = divmod(number, self.n_rows)
            begin = 0
            members = self._rows[int(self._order(epoch)[place])]
            for index, member in enumerate(members):
                pair, target = self._pairs[member]
                end = begin + len(pair)
                tokens[row, begin:end], documents[row, begin:end] = pair, index
                counts[row, begin + (target if self._on_target else 1) : end] = True
                begin = end
            documents[row, begin:] = len(members)
        counts &= tokens < self.layout.first_prompt_id
        return Sequences(tokens, documents[:, :-1], None, counts[:, 1:])

    def _order_of(self, epoch: int) -> np.ndarray:
        stream = numpy_stream(self._seed, "data.pairs", self._phase, epoch)
        return stream.permutation(self.n_rows)


def pack_rows(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Pack items into rows: the longest first, each into the fullest row with room. Return the
    items of each row."""
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # free tokens of each row, sorted
    for item in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        place = bisect_left(room, (lengths[item], -1))
        if place == len(room):
            left, row = capacity, len(rows)
            rows.append([])
        else:
            left, row = room.pop(place)
        rows[row].append(item)
        insort(room, (left - lengths[item], row))
    return rows
