"""Read the training sequences of a phase of examples (pairs, conversations), each by its number.

Examples are packed into rows once: the longest first, each into the fullest row with room. A row is
padded to its end; attention and positions stay within an example. Rows are shuffled again in each
epoch, by a stream of its own, so the order depends only on the seed, the phase and the epoch.
"""

import hashlib
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from feldspar.core.streams import numpy_stream
from feldspar.tokens.sequences.phase_sequences import Sequences


@dataclass(frozen=True)
class Example:
    """The tokens (n,), i64, of one example, and which of them are its targets."""

    tokens: np.ndarray
    targets: tuple[tuple[int, int], ...]
    """First token and the one after the last of each target, such as the answers of a
    conversation."""


@dataclass(frozen=True)
class RowLayout:
    """Rows of at most ``longest`` tokens, the last label included."""

    longest: int
    end_of_document_id: int
    """Id of the padding."""
    first_prompt_id: int
    """First id of the soft vectors: the number of rows of the model's vocabulary."""


class ExampleReader:
    """Rows of ``layout.longest`` tokens that hold ``examples``, none of which is longer.

    With ``on_target`` only the labels of targets count, else all. A label that is a soft vector or
    the first token of an example never counts. Safe to use from several threads.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        layout: RowLayout,
        *,
        seed: int,
        phase: str,
        on_target: bool,
    ) -> None:
        self.layout = layout
        self._seed, self._phase, self._on_target = seed, phase, on_target
        self._examples = examples
        self._rows = pack_rows([len(each.tokens) for each in examples], layout.longest)
        self._order = lru_cache(maxsize=4)(self._order_of)

    @property
    def n_examples(self) -> int:
        """Number of examples in an epoch."""
        return len(self._examples)

    @property
    def n_rows(self) -> int:
        """Number of sequences in an epoch."""
        return len(self._rows)

    @property
    def digest(self) -> str:
        """Digest of all tokens and of the places of the targets."""
        state = hashlib.sha256()
        for each in self._examples:
            places = [place for target in each.targets for place in target]
            # The end of a target at the end of its example says nothing.
            places = places[:-1] if places[-1:] == [len(each.tokens)] else places
            state.update(np.array([len(each.tokens), *places]).astype("<i8").tobytes())
            state.update(each.tokens.astype("<i8").tobytes())
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
                example = self._examples[member]
                end = begin + len(example.tokens)
                tokens[row, begin:end], documents[row, begin:end] = example.tokens, index
                for first, last in example.targets if self._on_target else ((1, end - begin),):
                    counts[row, begin + max(first, 1) : begin + last] = True
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
