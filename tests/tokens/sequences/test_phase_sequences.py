"""Sequences of phases: the same for any number of ranks and wherever a run resumes."""

import hashlib
import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldspar.core.errors import UserError
from feldspar.tokens.sequences.phase_sequences import PhaseData, SequenceReader
from feldspar.tokens.sequences.stream import Cursor
from feldspar.tokens.shards.shard_folder import ShardSet

HALF = {"prose": Fraction(1, 2), "code": Fraction(1, 2)}
MOSTLY_CODE = {"prose": Fraction(1, 10), "code": Fraction(9, 10)}
TWO = (PhaseData("one", HALF, 16, 600), PhaseData("two", MOSTLY_CODE, 16, 700))


def hashes(reader: SequenceReader, start: int, stop: int, phase: int = 0) -> list[str]:
    """One digest a sequence."""
    rows = reader.read(phase, start, stop).tokens
    return [hashlib.sha256(row.tobytes()).hexdigest() for row in rows]


@pytest.fixture(scope="module")
def thousand(shards: ShardSet) -> SequenceReader:
    return SequenceReader(shards, [PhaseData("only", HALF, 16, 1000)], seed=3)


def test_any_number_of_ranks_reads_the_same(thousand: SequenceReader, shards: ShardSet) -> None:
    expected = hashes(thousand, 0, 1000)
    assert len(set(expected)) > 990
    for ranks in (1, 2, 4):
        readers = [SequenceReader(shards, thousand.phases, seed=3) for _ in range(ranks)]
        found = []
        for first in range(0, 1000, 40):
            each = 40 // ranks
            for rank, reader in enumerate(readers):
                begin = first + rank * each
                found += hashes(reader, begin, begin + each)
        assert found == expected


def test_resuming_at_any_step_reads_the_same(thousand: SequenceReader, shards: ShardSet) -> None:
    expected = hashes(thousand, 0, 168)
    for step in range(21):
        fresh = SequenceReader(shards, thousand.phases, seed=3)
        assert hashes(fresh, step * 8, 168) == expected[step * 8 :]


@given(st.integers(0, 999), st.integers(0, 999))
def test_any_slice_is_part_of_the_whole(thousand: SequenceReader, a: int, b: int) -> None:
    start, stop = sorted((a, b))
    whole = thousand.read(0, 0, 1000).tokens
    assert np.array_equal(thousand.read(0, start, stop).tokens, whole[start:stop])


def rows_by_source(reader: SequenceReader, name: str) -> list[tuple[int, ...]]:
    """The sequences of one source, phase after phase."""
    return [
        tuple(row)
        for index, phase in enumerate(reader.phases)
        for row, source in zip(
            reader.read(index, 0, phase.sequences).tokens,
            reader.sources_of(index, 0, phase.sequences),
            strict=True,
        )
        if source == name
    ]


def test_the_next_phase_goes_on_where_the_last_one_stopped(shards: ShardSet) -> None:
    in_order = [PhaseData("long", HALF, 16, 3000)]
    for name in ("prose", "code"):
        stream = rows_by_source(SequenceReader(shards, in_order, 3, shuffled=False), name)
        found = rows_by_source(SequenceReader(shards, TWO, 3, shuffled=False), name)
        assert found == stream[: len(found)]
        shuffled = rows_by_source(SequenceReader(shards, TWO, 3), name)
        assert shuffled != found
        assert sorted(shuffled) == sorted(found)


def test_shuffling_keeps_every_epoch_whole(shards: ShardSet) -> None:
    phase = [PhaseData("epochs", {"code": Fraction(1)}, 16, 1500)]
    found = rows_by_source(SequenceReader(shards, phase, 3), "code")
    in_order = rows_by_source(SequenceReader(shards, phase, 3, shuffled=False), "code")
    per_epoch = (shards.tokens("train", "code") - 1) // 16
    for start in range(0, 1500, per_epoch):
        assert sorted(found[start : start + per_epoch]) == sorted(
            in_order[start : start + per_epoch]
        )
    neighbours = sum(
        a[-1:] == b[:1] and in_order.index(b) == in_order.index(a) + 1
        for a, b in itertools.pairwise(found)
    )
    assert neighbours < 20


def test_a_later_phase_changes_nothing_before_it(shards: ShardSet) -> None:
    other = (TWO[0], PhaseData("two", {"prose": Fraction(1)}, 8, 50))
    one, two = (SequenceReader(shards, phases, seed=3) for phases in (TWO, other))
    assert hashes(one, 0, 600) == hashes(two, 0, 600)


def test_another_context_length_starts_at_a_document(shards: ShardSet) -> None:
    phases = (PhaseData("short", HALF, 16, 601), PhaseData("long", HALF, 64, 100))
    reader = SequenceReader(shards, phases, seed=3)
    before, start = reader.cursors(0, 601), reader.cursors(1)
    for name in ("prose", "code"):
        assert start[name].epoch == before[name].epoch
        assert 0 <= start[name].token - before[name].token < 200
        stream = reader._streams[0][name]
        ends = stream._epoch(start[name].epoch).ends
        assert start[name].token in ends
    tokens = reader.read(1, 0, 100).tokens
    assert tokens.shape == (100, 65)


def test_a_source_that_a_phase_leaves_out_waits(shards: ShardSet) -> None:
    phases = (
        PhaseData("a", HALF, 16, 100),
        PhaseData("b", {"code": Fraction(1), "prose": Fraction(0)}, 16, 50),
        PhaseData("c", {"prose": Fraction(1)}, 16, 10),
    )
    reader = SequenceReader(shards, phases, seed=3)
    assert reader.cursors(2)["prose"] == reader.cursors(1)["prose"] == Cursor(0, 50 * 16)
    assert set(reader.sources_of(1, 0, 50)) == {"code"}
    assert reader.cursors(2)["code"] == Cursor(0, 100 * 16)


def test_epochs_and_counts(shards: ShardSet) -> None:
    reader = SequenceReader(shards, TWO, seed=3)
    tokens = shards.tokens("train", "code")
    assert reader.epochs(0, 600)["code"] == pytest.approx(300 * 16 / tokens)
    assert reader.epochs(1)["code"] == pytest.approx(630 * 16 / tokens)
    assert reader.sources_of(0, 0, 4).count("code") == 2


def test_mask_marks_documents_and_positions(shards: ShardSet) -> None:
    plain, masked = (
        SequenceReader(shards, [PhaseData("p", HALF, 48, 200, mode)], seed=3)
        for mode in ("concatenate", "mask")
    )
    assert plain.read(0, 0, 1).document_ids is None
    found = masked.read(0, 0, 200)
    assert np.array_equal(found.tokens, plain.read(0, 0, 200).tokens)
    assert found.document_ids is not None and found.positions is not None
    inputs = found.tokens[:, :-1]
    ended = np.cumsum(inputs == shards.end_of_document_id, axis=1)
    expected = np.concatenate([np.zeros((200, 1), np.int64), ended[:, :-1]], axis=1)
    assert np.array_equal(found.document_ids, expected)
    for ids, positions in zip(found.document_ids, found.positions, strict=True):
        for document in np.unique(ids):
            own = positions[ids == document]
            assert np.array_equal(own, np.arange(len(own)))


def test_validation_split(shards: ShardSet) -> None:
    phase = PhaseData("v", {"prose": Fraction(1)}, 16, 10)
    assert SequenceReader(shards, [phase], 3, split="validation").read(0, 0, 10).tokens.max() < 300


def test_mistakes(shards: ShardSet) -> None:
    with pytest.raises(UserError, match="did you mean 'prose'"):
        SequenceReader(shards, [PhaseData("x", {"pros": Fraction(1)}, 16, 10)], 3)
    long = PhaseData("x", {"prose": Fraction(1)}, 10**6, 10)
    with pytest.raises(UserError, match="fewer than one window of 1,000,000"):
        SequenceReader(shards, [long], 3)
    with pytest.raises(UserError, match="outside phase 'one', which has 600"):
        SequenceReader(shards, TWO, 3).read(0, 599, 601)
