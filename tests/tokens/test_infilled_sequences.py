"""Sequences of a phase that fills in the middle: a pure function, whoever reads and whenever."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from feldspar.core.errors import UserError
from feldspar.recipe.sections.tokens import ShardSettings, TrainBpe
from feldspar.tokens.sequences.phase_sequences import PhaseData, SequenceReader
from feldspar.tokens.sequences.sequence_loader import PrefetchingLoader
from feldspar.tokens.shards.build_shards import build_shards
from feldspar.tokens.shards.shard_folder import ShardSet
from tests.tokens.conftest import infilling, segments

HALF = {"prose": Fraction(1, 2), "code": Fraction(1, 2)}
INFILLED = PhaseData("infilled", HALF, 24, 200, "mask", infillings={"code": infilling(0.9)})


def test_any_slice_at_any_time_reads_the_same(infilling_shards: ShardSet) -> None:
    phases = [INFILLED, PhaseData("next", HALF, 24, 60, infillings={"prose": infilling(0.3)})]
    whole = SequenceReader(infilling_shards, phases, seed=3).read(0, 0, 200)
    assert whole.label_mask is not None and whole.cut_tokens > 0
    cut_tokens = 0
    for start, stop in ((0, 1), (1, 64), (64, 65), (65, 200)):
        fresh = SequenceReader(infilling_shards, phases, seed=3)
        part = fresh.read(0, start, stop)
        assert part.label_mask is not None
        assert np.array_equal(part.tokens, whole.tokens[start:stop])
        assert np.array_equal(part.label_mask, whole.label_mask[start:stop])
        cut_tokens += part.cut_tokens
    assert cut_tokens == whole.cut_tokens
    other_seed = SequenceReader(infilling_shards, phases, seed=4).read(0, 0, 200)
    assert not np.array_equal(other_seed.tokens, whole.tokens)


@pytest.mark.parametrize("workers", [0, 3])
def test_loader_threads_change_nothing(infilling_shards: ShardSet, workers: int) -> None:
    reader = SequenceReader(infilling_shards, [INFILLED], seed=3)
    expected = reader.read(0, 0, 200)
    with PrefetchingLoader(reader, workers) as loader:
        for start in range(0, 200, 20):
            loader.request(0, start, start + 20)
        taken = [loader.take() for _ in range(10)]
    inputs = np.concatenate([part.inputs.numpy() for part in taken])
    assert np.array_equal(inputs, expected.tokens[:, :-1])
    masks = [part.label_mask.numpy() for part in taken if part.label_mask is not None]
    assert np.array_equal(np.concatenate(masks), expected.label_mask)
    assert sum(part.cut_tokens for part in taken) == expected.cut_tokens


def test_only_the_named_source_is_transformed(infilling_shards: ShardSet) -> None:
    plain = SequenceReader(infilling_shards, [PhaseData("p", HALF, 24, 200)], seed=3)
    reader = SequenceReader(infilling_shards, [INFILLED], seed=3)
    before, after = plain.read(0, 0, 200), reader.read(0, 0, 200)
    assert before.label_mask is None and after.label_mask is not None
    code = np.array(reader.sources_of(0, 0, 200)) == "code"
    assert np.array_equal(before.tokens[~code], after.tokens[~code])
    assert after.label_mask[~code].all()
    changed = (before.tokens[code] != after.tokens[code]).any(axis=1).mean()
    assert 0.85 < changed <= 1
    assert after.document_ids is not None
    ended = np.cumsum(after.tokens[:, :-1] == infilling_shards.end_of_document_id, axis=1)
    assert np.array_equal(after.document_ids[:, 1:], ended[:, :-1])


def test_rate_0_changes_nothing(infilling_shards: ShardSet) -> None:
    phases = [
        PhaseData("p", HALF, 24, 200, infillings=dict.fromkeys(names, infilling(0.0)))
        for names in ((), ("prose", "code"))
    ]
    one, two = (SequenceReader(infilling_shards, [phase], 3).read(0, 0, 200) for phase in phases)
    assert np.array_equal(one.tokens, two.tokens)
    assert two.label_mask is not None and two.label_mask.all() and two.cut_tokens == 0


def test_each_epoch_draws_anew(infilling_shards: ShardSet) -> None:
    tokens = infilling_shards.tokens("train", "code")
    windows = (tokens - 1) // 400
    only = {"code": Fraction(1)}
    phase = PhaseData("p", only, 400, 2 * windows, infillings={"code": infilling(1.0)})
    read = SequenceReader(infilling_shards, [phase], 3, shuffled=False).read(0, 0, 2 * windows)
    end = infilling_shards.end_of_document_id
    first, second = (
        {tuple(part) for row in rows for part in segments(row.tolist(), end)[1:-1]}
        for rows in (read.tokens[:windows], read.tokens[windows:])
    )
    assert len(first & second) < len(first) / 5


def test_shards_without_the_tokens_are_refused(
    shards: ShardSet, documents: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="has no token"):
        SequenceReader(shards, [INFILLED], seed=3)
    settings = ShardSettings(path=tmp_path / "shards")
    with pytest.raises(UserError, match="has no token"):
        build_shards(
            documents, TrainBpe(vocab_size=300), settings, seed=5, infilling_scopes={"context"}
        )
    assert not list(tmp_path.iterdir())
