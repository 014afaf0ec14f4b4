"""The recorded order: other code re-creates it, over ends of epochs and borders of phases."""

import json
from fractions import Fraction
from typing import Any

import pytest

from feldspar.core.errors import UserError
from feldspar.recipe.sections.phase_data import FillInTheMiddle, Select
from feldspar.tokens.sequences.data_order import (
    Chunk,
    RecordedOrder,
    chunk_digest,
    chunk_records,
    index_of,
    phase_of,
    phase_record,
)
from feldspar.tokens.sequences.phase_sequences import PhaseData, SequenceReader
from feldspar.tokens.shards.shard_folder import ShardSet
from tests.tokens.sequences.independent_order import digest_of, sequences_of

SHARES = {"prose": Fraction(7, 10), "code": Fraction(3, 10)}
PHASES = (
    PhaseData("first", SHARES, 16, 900),
    PhaseData("same length", {"code": Fraction(1)}, 16, 1000),
    PhaseData("longer", {"code": Fraction(1, 2), "prose": Fraction(1, 2)}, 40, 300),
)
SEED = 11


def record_of(shards: ShardSet, reader: SequenceReader) -> dict[str, Any]:
    phases = [
        phase_record(phase, {}) | {"sequences_read": phase.sequences} for phase in reader.phases
    ]
    chunks = [
        Chunk(
            n,
            0,
            phase.sequences,
            0,
            chunk_digest(lambda a, b, n=n: reader.read(n, a, b), 0, phase.sequences),
        )
        for n, phase in enumerate(reader.phases)
    ]
    return json.loads(
        json.dumps(
            {
                "format_version": 1,
                "seed": SEED,
                "shards": {
                    "digest": shards.digest,
                    "dtype": "<u2",
                    "begin_of_sequence_id": shards.begin_of_sequence_id,
                },
                "phases": phases,
                "chunks": chunk_records(chunks),
            }
        )
    )


def test_independent_code_re_creates_the_order_over_epochs_and_phases(shards: ShardSet) -> None:
    reader = SequenceReader(shards, PHASES, SEED)
    record = record_of(shards, reader)
    found = sequences_of(record, shards.path)
    assert max(place[1] for phase in found for place, _ in phase) >= 2, "no end of an epoch"
    for number, phase in enumerate(found):
        assert digest_of([tokens for _, tokens in phase]) == record["chunks"][number]["sha256"]
        index = index_of(reader, number, len(phase))
        assert index.tolist() == [place for place, _ in phase]


def test_a_record_is_opened_again_and_compared(shards: ShardSet) -> None:
    record = record_of(shards, SequenceReader(shards, PHASES, SEED))
    assert RecordedOrder(record, shards).problems({}) == []
    record["phases"][2]["sources"].reverse()
    (problem,) = RecordedOrder(record, shards).problems({})
    assert "sequences 0 to 299 of phase longer" in problem
    record["shards"]["digest"] = "0"
    with pytest.raises(UserError, match="other shards"):
        RecordedOrder(record, shards)


def test_parts_and_gaps_of_a_phase_are_recorded() -> None:
    phase = PhaseData(
        "gaps",
        {"prose": Fraction(1, 3), "code": Fraction(2, 3)},
        32,
        10,
        selections={"prose": Select(range=(0.0, 0.5))},
        infillings={"code": FillInTheMiddle(rate=0.9, scope="context")},
    )
    assert phase_of(json.loads(json.dumps(phase_record(phase, {})))) == phase
