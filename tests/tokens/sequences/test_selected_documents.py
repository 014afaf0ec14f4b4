"""Parts of a source: disjoint by construction, with a stream and passes of their own."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from feldspar.core.errors import UserError
from feldspar.recipe.sections.phase_data import Select
from feldspar.tokens.sequences.phase_sequences import PhaseData, SequenceReader
from feldspar.tokens.sequences.resolve import MeasuredTokens, tokens_of
from feldspar.tokens.sequences.selected_documents import select_documents
from feldspar.tokens.shards.shard_folder import ShardSet, SourceTokens

EVEN, ODD = Select(files="even"), Select(files="odd")
ONLY = {"prose": Fraction(1)}

ranges = st.tuples(st.integers(0, 19), st.integers(1, 20)).map(
    lambda pair: Select(range=(min(pair[0], pair[1] - 1) / 20, pair[1] / 20))
)
selects = st.one_of(st.just(EVEN), st.just(ODD), ranges)


def places(source: SourceTokens) -> set[tuple[int, int]]:
    """File and first token of each document."""
    return set(zip(source.file_index.tolist(), source.starts.tolist(), strict=True))


def test_even_and_odd_files_are_the_whole(shards: ShardSet) -> None:
    whole = shards.read("train", "prose")
    even, odd = (select_documents(whole, select, "prose") for select in (EVEN, ODD))
    assert len(whole.files) >= 2
    assert places(even) | places(odd) == places(whole)
    assert not places(even) & places(odd)
    assert even.tokens + odd.tokens == whole.tokens
    assert set(even.file_index.tolist()) == set(range(0, len(whole.files), 2))
    assert select_documents(whole, None, "prose") is whole


@given(selects, selects)
def test_parts_that_do_not_overlap_share_no_document(
    shards: ShardSet, one: Select, other: Select
) -> None:
    whole = shards.read("train", "prose")
    first, second = (select_documents(whole, select, "prose") for select in (one, other))
    assert one.overlaps(other) == other.overlaps(one)
    if not one.overlaps(other):
        assert not places(first) & places(second)


def test_adjoining_ranges_are_the_whole(shards: ShardSet) -> None:
    whole = shards.read("train", "code")
    bounds = (0.0, 0.1, 0.35, 0.7, 1.0)
    parts = [
        select_documents(whole, Select(range=pair), "code") for pair in itertools.pairwise(bounds)
    ]
    assert np.array_equal(np.concatenate([part.starts for part in parts]), whole.starts)
    assert len(parts[0].lengths) == len(whole.lengths) // 10


def test_a_phase_reads_its_part_only(shards: ShardSet) -> None:
    whole = shards.read("train", "prose")
    phases = [
        PhaseData("one", ONLY, 16, 100, selections={"prose": EVEN}),
        PhaseData("two", ONLY, 16, 100, selections={"prose": ODD}),
        PhaseData("three", ONLY, 16, 40, selections={"prose": EVEN}),
    ]
    reader = SequenceReader(shards, phases, seed=3, shuffled=False)
    even = select_documents(whole, EVEN, "prose")
    assert reader.epochs(0) == {"prose": 1600 / even.tokens}
    windows = {tuple(row.tolist()) for row in reader.read(0, 0, 100).tokens}
    assert not windows & {tuple(row.tolist()) for row in reader.read(1, 0, 100).tokens}
    # The third phase goes on in the first one's part.
    joined = SequenceReader(
        shards, [PhaseData("all", ONLY, 16, 140, selections={"prose": EVEN})], 3, shuffled=False
    )
    assert np.array_equal(reader.read(2, 0, 40).tokens, joined.read(0, 100, 140).tokens)
    assert reader.sources_of(1, 0, 2) == ["prose", "prose"]


def test_tokens_of_a_part_are_measured_or_expected() -> None:
    assert tokens_of({"a": 1000}, "a", EVEN) == 500
    assert tokens_of({"a": 1000}, "a", Select(range=(0.5, 0.75))) == 250
    assert tokens_of({"a": None}, "a", EVEN) is None
    measured = MeasuredTokens({"a": 1000}, {EVEN.label("a"): 640})
    assert tokens_of(measured, "a", EVEN) == 640
    assert tokens_of(measured, "a") == 1000


def test_mistakes(shards: ShardSet) -> None:
    whole = shards.read("validation", "prose")
    assert len(whole.files) == 1
    with pytest.raises(
        UserError, match=r"prose\[odd files\] is empty: .* in 1 shard files"
    ) as caught:
        select_documents(whole, ODD, "prose")
    assert "shards.shard_tokens" in (caught.value.do or "")
    for bad in ({}, {"files": "even", "range": [0, 1]}, {"range": [0.5, 0.5]}, {"range": [0, 1.1]}):
        with pytest.raises(ValidationError):
            Select.model_validate(bad)
