"""Sequences begin with the token with which the shards' tokenizer begins a text."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from feldspar.recipe.sections.tokens import HuggingFaceTokenizer, ShardSettings
from feldspar.tokens.sequences.pairs import Pair, PairLayout
from feldspar.tokens.sequences.phase_sequences import PhaseData, SequenceReader, documents_in
from feldspar.tokens.shards.build_shards import build_shards
from feldspar.tokens.shards.shard_folder import ShardSet
from tests.tokens.conftest import FIM, infilling
from tests.tokens.tokenizer.test_declaration import whole_base

HALF = {"code": Fraction(1, 2), "prose": Fraction(1, 2)}
BEGIN = 1


@pytest.fixture(scope="module")
def begun(documents: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder = tmp_path_factory.mktemp("begun")
    whole_base(folder / "base")
    tokenizer = HuggingFaceTokenizer(path=str(folder / "base"), special_tokens=FIM)
    build_shards(documents, tokenizer, ShardSettings(path=folder / "shards"), seed=5, workers=1)
    return ShardSet.open(folder / "shards")


@pytest.fixture(scope="module")
def plain(begun: ShardSet) -> ShardSet:
    """The same shards, whose sequences do not begin with the token."""
    shards = ShardSet.open(begun.path)
    shards.begin_of_sequence_id = None
    return shards


def phases(length: int, **settings) -> list[PhaseData]:
    return [
        PhaseData("one", HALF, length, 400, **settings),
        PhaseData("two", HALF, length, 300, **settings),
        PhaseData("three", HALF, 2 * length - (length % 2), 60, **settings),
    ]


def test_shards_hold_text_only(begun: ShardSet) -> None:
    assert begun.begin_of_sequence_id == BEGIN
    for name in begun.sources():
        assert not any((tokens == BEGIN).any() for tokens in begun.read("train", name).files)


@pytest.mark.parametrize("infilled", [False, True])
def test_a_sequence_is_the_token_and_one_token_of_text_less(
    begun: ShardSet, plain: ShardSet, infilled: bool
) -> None:
    how = {"infillings": {"code": infilling(0.5)}} if infilled else {}
    with_token = SequenceReader(begun, phases(16, **how), seed=3)
    without = SequenceReader(plain, phases(15, **how), seed=3)
    for index, count in enumerate((400, 300)):
        found, text = (reader.read(index, 0, count) for reader in (with_token, without))
        assert (found.tokens[:, 0] == BEGIN).all()
        assert np.array_equal(found.tokens[:, 1:], text.tokens)
        assert with_token.epochs(index) == without.epochs(index)
        assert with_token.cursors(index, count) == without.cursors(index, count)
        if infilled:
            assert found.label_mask is not None and found.label_mask[:, 0].all()
            assert np.array_equal(found.label_mask[:, 1:], text.label_mask)
    again = SequenceReader(begun, phases(16, **how), seed=3)
    for start, stop in ((399, 400), (0, 7), (7, 399)):
        whole = with_token.read(0, start, stop).tokens
        assert np.array_equal(again.read(0, start, stop).tokens, whole)


def test_the_token_belongs_to_the_first_document(begun: ShardSet) -> None:
    found = SequenceReader(begun, phases(16, documents="mask"), seed=3).read(0, 0, 50)
    ids, positions = documents_in(found.tokens[:, :-1], begun.end_of_document_id)
    assert np.array_equal(found.document_ids, ids) and np.array_equal(found.positions, positions)
    assert found.positions is not None and (found.positions[:, :2] == [0, 1]).mean() > 0.9


def test_a_pair_begins_with_the_token() -> None:
    pair = Pair(np.arange(10, 14), np.arange(20, 22), (), "pairs.jsonl:1")
    tokens, target = PairLayout(11, 2, 90, 2, begin_ids=(BEGIN,)).sequence(pair)
    assert tokens.tolist() == [BEGIN, 10, 11, 12, 13, 90, 91, 20, 21, 2] and target == 7
    tokens, target = PairLayout(11, 2, 90, 2, "prefix", begin_ids=(BEGIN,)).sequence(pair)
    assert tokens.tolist() == [BEGIN, 90, 91, 10, 11, 12, 13, 20, 21, 2] and target == 7
    cut = PairLayout(8, 2, 90, 2, truncate=True, begin_ids=(BEGIN,)).context(pair)
    assert cut.tolist() == [BEGIN, 12, 13, 90, 91]
