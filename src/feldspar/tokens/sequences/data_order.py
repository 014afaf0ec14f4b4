"""The order of a run's training data as a record that anyone can recompute from the shards.

The record names the shards, the seed and the phases, which decide the order, and the digest of the
tokens of each chunk of sequences. ``docs/methods/data-order.md`` states the rule. Loads no torch.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from feldspar.core.errors import UserError
from feldspar.core.progress import progress
from feldspar.recipe.sections.phase_data import FillInTheMiddle, Select
from feldspar.tokens.sequences.phase_sequences import PhaseData, SequenceReader, Sequences
from feldspar.tokens.shards.shard_folder import ShardSet

FORMAT_VERSION = 1
SEQUENCES_AT_ONCE = 256
INDEX_TYPE = np.dtype([("source", "<u2"), ("epoch", "<u4"), ("token", "<u8")])
"""A row of the index for each sequence: number of the source in the phase's ``sources``, epoch, and
first token in the source's stream of that epoch."""

Read = Callable[[int, int], Sequences]


@dataclass(frozen=True)
class Chunk:
    """Consecutive sequences of one phase, and the digest of their tokens."""

    phase: int
    """Index of the phase in the run."""
    first_sequence: int
    sequences: int
    position: int
    """Tokens that the run has read after the chunk."""
    sha256: str


def chunk_digest(read: Read, first: int, sequences: int) -> str:
    """Return the SHA-256 of the tokens of consecutive sequences.

    Each sequence gives its L + 1 tokens as little-endian u32. Where some labels do not count, the
    L bytes of its label mask (1: counts) follow.
    """
    state = hashlib.sha256()
    for start in range(first, first + sequences, SEQUENCES_AT_ONCE):
        found = read(start, min(start + SEQUENCES_AT_ONCE, first + sequences))
        rows = found.tokens.astype("<u4")
        if found.label_mask is None:
            state.update(rows.tobytes())
            continue
        for row, mask in zip(rows, found.label_mask, strict=True):
            state.update(row.tobytes() + mask.astype(np.uint8).tobytes())
    return state.hexdigest()


def phase_record(phase: PhaseData, epochs: Mapping[str, float]) -> dict[str, Any]:
    """Return the settings of a phase that decide its order, as plain values."""
    return {
        "rule": "shards",
        "name": phase.name,
        "context_length": phase.context_length,
        "sequences": phase.sequences,
        "documents": phase.documents,
        "sources": [
            {
                "source": name,
                "probability": str(share),
                "epochs": epochs.get(name),
                "select": _plain(phase.selections.get(name)),
                "fill_in_the_middle": _plain(phase.infillings.get(name)),
            }
            for name, share in phase.probabilities.items()
            if share > 0
        ],
    }


def phase_of(record: Mapping[str, Any]) -> PhaseData:
    """Return the phase that ``phase_record`` described."""
    sources = record["sources"]
    return PhaseData(
        name=record["name"],
        probabilities={each["source"]: Fraction(each["probability"]) for each in sources},
        context_length=record["context_length"],
        sequences=record["sequences"],
        documents=record["documents"],
        selections=_settings(Select, sources, "select"),
        infillings=_settings(FillInTheMiddle, sources, "fill_in_the_middle"),
    )


def _plain(settings: Select | FillInTheMiddle | None) -> dict[str, Any] | None:
    return None if settings is None else settings.model_dump(mode="json")


def _settings(kind: Any, sources: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any]:
    adapter = TypeAdapter(kind)
    return {each["source"]: adapter.validate_python(each[key]) for each in sources if each[key]}


def index_of(reader: SequenceReader, phase_index: int, sequences: int) -> np.ndarray:
    """Return the index of the first ``sequences`` sequences of a phase of ``reader``."""
    phase = reader.phases[phase_index]
    numbers = {
        name: number
        for number, name in enumerate(n for n, share in phase.probabilities.items() if share > 0)
    }
    rows = (
        (numbers[name], cursor.epoch, cursor.token)
        for name, cursor in reader.places(phase_index, 0, sequences)
    )
    return np.fromiter(rows, INDEX_TYPE, count=sequences)


class RecordedOrder:
    """A recorded order, with the shards that it was made from."""

    def __init__(self, record: Mapping[str, Any], shards: ShardSet) -> None:
        """Open the order. Raises UserError for other shards and for a later format."""
        if record["format_version"] != FORMAT_VERSION:
            raise UserError(
                "the data order was written by another version of feldspar",
                found=f"format {record['format_version']}",
                allowed=f"format {FORMAT_VERSION}",
            )
        expected = record["shards"]["digest"]
        if shards.digest != expected:
            raise UserError(
                f"{shards.path} holds other shards than the run read",
                found=shards.digest,
                allowed=expected,
                do="build the shards by recipe.yaml, or name their folder with --shards",
            )
        self.shards = shards
        self.record = record
        of_shards = [
            index for index, phase in enumerate(record["phases"]) if phase["rule"] == "shards"
        ]
        self._places = {index: place for place, index in enumerate(of_shards)}
        phases = [phase_of(record["phases"][index]) for index in of_shards]
        self.reader = SequenceReader(shards, phases, record["seed"])

    @property
    def chunks(self) -> list[Chunk]:
        """The chunks whose tokens come from shards, and whose order can be recomputed."""
        chunks = (Chunk(**each) for each in self.record["chunks"])
        return [chunk for chunk in chunks if chunk.phase in self._places]

    def problems(self, indices: Mapping[int, np.ndarray]) -> list[str]:
        """Recompute each chunk and each index; return a line for each that differs."""
        found = []
        total = sum(chunk.sequences for chunk in self.chunks)
        with progress("recomputing the data order", total, "sequences") as advance:
            for chunk in self.chunks:
                digest = chunk_digest(
                    lambda a, b, phase=chunk.phase: self.reader.read(self._places[phase], a, b),
                    chunk.first_sequence,
                    chunk.sequences,
                )
                if digest != chunk.sha256:
                    last = chunk.first_sequence + chunk.sequences - 1
                    name = self.record["phases"][chunk.phase]["name"]
                    found.append(
                        f"data order: the tokens of sequences {chunk.first_sequence:,} to "
                        f"{last:,} of phase {name} differ from their digest"
                    )
                advance(chunk.sequences)
        for phase, index in indices.items():
            if not np.array_equal(index_of(self.reader, self._places[phase], len(index)), index):
                found.append(f"data order: the index of phase {phase} names other places")
        return found

    def sequence_places(self, phase: int, first: int, sequences: int) -> list[dict[str, Any]]:
        """Return the place of each sequence: its source, and the tokens of shards that it reads.

        Tokens of documents that fill-in-the-middle transforms have no place of their own; the
        whole document is named.
        """
        place = self._places.get(phase)
        if place is None:
            raise UserError(f"phase {phase} reads examples from files, not from shards")
        data = self.reader.phases[place]
        found = []
        for number, (source, cursor) in enumerate(
            self.reader.places(place, first, first + sequences)
        ):
            transformed = data.infilling(source, "document") is not None
            parts = [
                self._part(data, source, part, transformed)
                for part in self.reader.parts(place, source, cursor)
            ]
            found.append(
                {
                    "sequence": first + number,
                    "source": source,
                    "epoch": cursor.epoch,
                    "token": cursor.token,
                    "reads": parts,
                }
            )
        return found

    def _part(
        self, data: PhaseData, source: str, part: tuple[int, int, int], transformed: bool
    ) -> dict[str, Any]:
        from feldspar.tokens.sequences.selected_documents import select_documents

        document, first, count = part
        documents = select_documents(
            self.shards.read("train", source), data.selections.get(source), source
        )
        file, start = int(documents.file_index[document]), int(documents.starts[document])
        if transformed:
            first, count = 0, int(documents.lengths[document])
        return {
            "file": f"train/{source}/{file:05d}.tokens",
            "first_token": start + first,
            "tokens": count,
        }


def chunk_records(chunks: Sequence[Chunk]) -> list[dict[str, Any]]:
    """Return chunks as plain values."""
    return [asdict(chunk) for chunk in chunks]
