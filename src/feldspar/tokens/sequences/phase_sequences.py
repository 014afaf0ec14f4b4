"""Read the training sequences of a run's phases, each by its number.

A sequence depends on the shards, the seed, the phase and the phases before it. It does not depend
on the number of processes, on batch sizes, or on where a run was resumed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache, partial
from typing import Literal

import numpy as np

from feldspar.core.errors import UserError
from feldspar.core.streams import stream_seed
from feldspar.recipe.sections.phase_data import FillInTheMiddle, Select
from feldspar.tokens.sequences.infilled_documents import InfilledSource
from feldspar.tokens.sequences.infilled_stream import InfilledStream
from feldspar.tokens.sequences.mixture import named_sampler
from feldspar.tokens.sequences.selected_documents import select_documents
from feldspar.tokens.sequences.shuffle import WindowOrder
from feldspar.tokens.sequences.stream import Cursor, SourceStream
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.tokens.tokenizer.infilling import Infiller
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

Documents = Literal["concatenate", "mask"]


@dataclass(frozen=True)
class PhaseData:
    """Sources and length of one phase."""

    name: str
    probabilities: dict[str, Fraction]
    """Share of sequences of each source; sums to 1."""
    context_length: int
    """Tokens of a sequence, without its last label."""
    sequences: int
    """Number of sequences in the phase."""
    documents: Documents = "concatenate"
    """``mask`` also returns document ids and positions, for attention within documents."""
    selections: Mapping[str, Select] = field(default_factory=dict)
    """Sources of which the phase reads only a part; each part is a stream of its own."""
    infillings: Mapping[str, FillInTheMiddle] = field(default_factory=dict)
    """Sources whose documents are transformed by fill-in-the-middle."""

    def part(self, source: str) -> str:
        """Return the name of what the phase reads of ``source``: all of it, or a part."""
        select = self.selections.get(source)
        return source if select is None else select.label(source)

    def infilling(
        self, source: str, scope: Literal["document", "context"]
    ) -> FillInTheMiddle | None:
        """Return how ``source`` is transformed in this scope; None if it is not."""
        how = self.infillings.get(source)
        return how if how is not None and how.scope == scope else None

    @property
    def changes_windows(self) -> bool:
        """True if a source is transformed after its documents were packed."""
        return any(how.scope == "context" for how in self.infillings.values())


@dataclass(frozen=True)
class Sequences:
    """B sequences of context length L."""

    tokens: np.ndarray
    """(B, L+1) i64: inputs are all columns but the last, labels all but the first. The first column
    is the begin-of-sequence token, where the shards' tokenizer begins a text with one."""
    document_ids: np.ndarray | None = None
    """(B, L) i32: 0, 1, ... for the documents of each sequence; only with ``mask``."""
    positions: np.ndarray | None = None
    """(B, L) i32: position within the document's part of the sequence; only with ``mask``."""
    label_mask: np.ndarray | None = None
    """(B, L) bool: False where a label does not count; only with fill-in-the-middle of windows."""
    cut_tokens: int = 0
    """Number of tokens that fill-in-the-middle of windows pushed out of these sequences."""


class SequenceReader:
    """Read the sequences of consecutive ``phases`` from one split of ``shards``.

    A later phase continues in each source where the phase before stopped: at the same token if both
    have the same context length, else at the next start of a document. It also continues at the
    next start of a document where fill-in-the-middle of whole documents begins, ends or changes.
    Within a phase the windows are shuffled (see ``shuffle``), or in the stream's order with
    ``shuffled`` off. Safe to use from several threads. Raises UserError for a source that the
    shards lack or that is too short.
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
        self._end_of_document_id = shards.end_of_document_id
        self._begin = () if shards.begin_of_sequence_id is None else (shards.begin_of_sequence_id,)
        mixtures = [named_sampler(phase.probabilities) for phase in self.phases]
        self._names = [names for names, _ in mixtures]
        self._samplers = [sampler for _, sampler in mixtures]
        self._streams = self._streams_of_phases(shards, split)
        self._infiller = None
        if any(phase.changes_windows for phase in self.phases):
            tokenizer = TextTokenizer.load(shards.tokenizer, shards.end_of_document)
            self._infiller = Infiller(tokenizer, pads=True)
        self._start_cursors = lru_cache(maxsize=None)(self._cursors_at_start)
        self._orders = lru_cache(maxsize=None)(self._window_orders)
        last = self._streams[-1] if self._streams else {}
        if any(isinstance(stream, InfilledStream) for stream in last.values()):
            # This measures all epochs that the run reads, before it begins.
            self.cursors(len(self.phases) - 1, self.phases[-1].sequences)

    def _streams_of_phases(self, shards: ShardSet, split: str) -> list[dict[str, SourceStream]]:
        """Return the streams in use in each phase, by the parts of sources that they read.

        A part keeps its stream in phases that do not read it. A part that is read with another
        transformation has another stream. Raises UserError for a part without a whole window.
        """
        made: dict[tuple[str, FillInTheMiddle | None], SourceStream] = {}
        in_use: dict[str, SourceStream] = {}
        of_phases = []
        for phase, names in zip(self.phases, self._names, strict=True):
            for name in names:
                part, select = phase.part(name), phase.selections.get(name)
                how = phase.infilling(name, "document")
                if (part, how) not in made:
                    if how is None:
                        source = select_documents(shards.read(split, name), select, name)
                        made[part, how] = SourceStream(source, part, self._seed)
                    else:
                        of = InfilledSource(split, name, select, how, self._seed)
                        made[part, how] = InfilledStream(of, shards)
                in_use[part] = made[part, how]
                in_use[part].locate(Cursor(), self._text_tokens(phase), 0)
            of_phases.append(dict(in_use))
        return of_phases

    def _text_tokens(self, phase: PhaseData) -> int:
        """Return the tokens of a sequence that a source gives: all but the begin of sequence."""
        return phase.context_length - len(self._begin)

    def read(self, phase_index: int, start: int, stop: int) -> Sequences:
        """Return the sequences ``start`` to ``stop`` - 1 of a phase.

        Raises UserError if the phase has fewer sequences.
        """
        phase = self.phases[phase_index]
        if not 0 <= start <= stop <= phase.sequences:
            raise UserError(
                f"sequences {start} to {stop} are outside phase {phase.name!r}, which has "
                f"{phase.sequences}"
            )
        length, infiller = phase.context_length, self._infiller
        tokens = np.empty((stop - start, length + 1), np.int64)
        skip = len(self._begin)
        tokens[:, :skip] = self._begin
        label_mask = np.ones((stop - start, length), bool) if phase.changes_windows else None
        cut_tokens = 0
        for row, (name, cursor) in enumerate(self.places(phase_index, start, stop)):
            self._streams[phase_index][phase.part(name)].copy_window(cursor, tokens[row, skip:])
            how = phase.infilling(name, "context")
            if how is not None and label_mask is not None and infiller is not None:
                key = stream_seed(self._seed, "data.infilling", phase.part(name), cursor.epoch)
                filled = infiller.window(tokens[row, skip:], how, key, cursor.token)
                tokens[row, skip:], label_mask[row, skip:] = filled.tokens, filled.label_mask
                cut_tokens += filled.cut_tokens
        marks = (
            documents_in(tokens[:, :-1], self._end_of_document_id)
            if phase.documents == "mask"
            else (None, None)
        )
        return Sequences(tokens, *marks, label_mask, cut_tokens)

    def places(self, phase_index: int, start: int, stop: int) -> Iterator[tuple[str, Cursor]]:
        """Yield the source of each of these sequences, and where its text begins in the stream."""
        names = self._names[phase_index]
        sources, ordinals = self._samplers[phase_index].sources_of(start, stop)
        for source, number in zip(sources.tolist(), ordinals.tolist(), strict=True):
            yield names[source], self._cursor(phase_index, source, number)

    def parts(
        self, phase_index: int, source: str, cursor: Cursor
    ) -> Iterator[tuple[int, int, int]]:
        """Yield the documents of one sequence: index in the source, first token, and tokens.

        The last token is only a label.
        """
        phase = self.phases[phase_index]
        stream = self._streams[phase_index][phase.part(source)]
        return stream.parts(cursor, self._text_tokens(phase) + 1)

    def sources_of(self, phase_index: int, start: int, stop: int) -> list[str]:
        """Return the source of each of these sequences."""
        names = self._names[phase_index]
        sources, _ = self._samplers[phase_index].sources_of(start, stop)
        return [names[source] for source in sources.tolist()]

    def _cursor(self, phase_index: int, source: int, number: int) -> Cursor:
        """Return the beginning of the window that the phase reads as ``number`` of its
        ``source``-th one."""
        phase = self.phases[phase_index]
        part = phase.part(self._names[phase_index][source])
        place = self._orders(phase_index)[source].place(number) if self._shuffled else number
        start = self._start_cursors(phase_index)[part]
        return self._streams[phase_index][part].locate(start, self._text_tokens(phase), place)

    def cursors(self, phase_index: int, sequences: int = 0) -> dict[str, Cursor]:
        """Return the position of each stream after a number of sequences of a phase.

        The streams of all phases are included. A stream has the name of its source, or of the part
        of it that a phase selects.
        """
        phase = self.phases[phase_index]
        counts = self._samplers[phase_index].counts_before(sequences)
        cursors = dict(self._start_cursors(phase_index))
        for name, count in zip(self._names[phase_index], counts, strict=True):
            part = phase.part(name)
            cursors[part] = self._streams[phase_index][part].cursor_after(
                cursors[part], self._text_tokens(phase), count
            )
        return cursors

    def epochs(self, phase_index: int, sequences: int | None = None) -> dict[str, float]:
        """Return the passes over each source of a phase in its first ``sequences`` (default: all).

        If the phase reads only a part of a source, passes over that part are counted.
        """
        phase = self.phases[phase_index]
        counts = self._samplers[phase_index].counts_before(
            phase.sequences if sequences is None else sequences
        )
        return {
            name: count
            * self._text_tokens(phase)
            / self._streams[phase_index][phase.part(name)].tokens
            for name, count in zip(self._names[phase_index], counts, strict=True)
        }

    def _window_orders(self, phase_index: int) -> list[WindowOrder]:
        """Return the order of windows of each source of the phase."""
        phase, cursors = self.phases[phase_index], self._start_cursors(phase_index)
        totals = self._samplers[phase_index].counts_before(phase.sequences)
        orders = []
        for name, total in zip(self._names[phase_index], totals, strict=True):
            part, length = phase.part(name), self._text_tokens(phase)
            epoch_of = partial(self._epoch_of, phase_index, part, length, cursors[part])
            orders.append(WindowOrder(self._seed, part, phase_index, epoch_of, total))
        return orders

    def _epoch_of(
        self, phase_index: int, part: str, length: int, start: Cursor, number: int
    ) -> tuple[int, int]:
        """Return the first window, and the number of windows, of the epoch of window ``number``."""
        epoch = self._streams[phase_index][part].windows_around(start, length, number)
        return epoch.first, epoch.count

    def _cursors_at_start(self, phase_index: int) -> dict[str, Cursor]:
        if phase_index == 0:
            return dict.fromkeys(self._streams[-1], Cursor())
        before, phase = self.phases[phase_index - 1], self.phases[phase_index]
        cursors = self.cursors(phase_index - 1, before.sequences)
        for part, old in self._streams[phase_index - 1].items():
            new = self._streams[phase_index][part]
            if new is not old or before.context_length != phase.context_length:
                cursors[part] = new.at_document(cursors[part], old)
        return cursors


def documents_in(inputs: np.ndarray, end_of_document_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Return document ids and positions, (B, L) i32, of inputs (B, L), found by the ends of
    documents."""
    begins = np.zeros(inputs.shape, bool)
    begins[:, 1:] = inputs[:, :-1] == end_of_document_id
    places = np.arange(inputs.shape[1], dtype=np.int32)
    starts = np.maximum.accumulate(np.where(begins, places, 0), axis=1)
    return np.cumsum(begins, axis=1, dtype=np.int32), places - starts
