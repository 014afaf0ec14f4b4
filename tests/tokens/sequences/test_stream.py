"""One source's windows against a stream written out in full."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldspar.core.errors import UserError
from feldspar.tokens.sequences.stream import Cursor, SourceStream
from feldspar.tokens.shards.shard_folder import SourceTokens


def source_of(lengths: list[int], files: int = 2) -> SourceTokens:
    """Every token differs from every other; the documents lie in ``files`` files."""
    total = np.arange(sum(lengths), dtype=np.uint32)
    cuts = [len(lengths) * n // files for n in range(files + 1)]
    array = np.array(lengths, np.int64)
    ends = np.cumsum(array)
    parts, index, starts = [], [], []
    for number in range(files):
        first, last = cuts[number], cuts[number + 1]
        begin = int(ends[first - 1]) if first else 0
        parts.append(total[begin : int(ends[last - 1]) if last else 0])
        index += [number] * (last - first)
        starts += (ends[first:last] - array[first:last] - begin).tolist()
    return SourceTokens(tuple(parts), np.array(index, np.int32), np.array(starts), array)


def written_out(stream: SourceStream, epoch: int) -> np.ndarray:
    """An epoch's tokens, document by document."""
    source, order = stream._source, stream._epoch(epoch).order
    return np.concatenate([source.document(int(document)) for document in order])


def window(stream: SourceStream, cursor: Cursor, length: int) -> np.ndarray:
    tokens = np.empty(length + 1, np.int64)
    stream.copy_window(cursor, tokens)
    return tokens


lengths = st.lists(st.integers(1, 30), min_size=2, max_size=25)


@given(lengths, st.integers(1, 40), st.integers(0, 2**60))
def test_windows_are_cut_from_the_written_out_epochs(
    documents: list[int], length: int, seed: int
) -> None:
    stream = SourceStream(source_of(documents), "s", seed)
    if sum(documents) < length + 1:
        with pytest.raises(UserError, match="fewer than one window"):
            stream.locate(Cursor(), length, 0)
        return
    expected = []
    for epoch in range(3):
        tokens = written_out(stream, epoch)
        count = (len(tokens) - 1) // length
        expected += [tokens[k * length : (k + 1) * length + 1] for k in range(count)]
    for number, tokens in enumerate(expected):
        found = window(stream, stream.locate(Cursor(), length, number), length)
        assert np.array_equal(found, tokens)


@given(lengths, st.integers(1, 20), st.integers(0, 60))
def test_each_input_token_once_an_epoch_but_for_the_tail(
    documents: list[int], length: int, seed: int
) -> None:
    stream = SourceStream(source_of(documents), "s", seed)
    count = stream.windows_left(Cursor(), length)
    inputs = [
        token
        for number in range(count)
        for token in window(stream, stream.locate(Cursor(), length, number), length)[:-1]
    ]
    assert len(set(inputs)) == len(inputs) == count * length
    assert 0 < stream.tokens - len(inputs) <= length


@given(lengths, st.integers(1, 20), st.integers(0, 30), st.integers(0, 30))
def test_going_on_from_a_cursor(documents: list[int], length: int, done: int, more: int) -> None:
    stream = SourceStream(source_of(documents), "s", 4)
    if sum(documents) < length + 1:
        return
    cursor = stream.cursor_after(Cursor(), length, done)
    assert stream.locate(cursor, length, more) == stream.locate(Cursor(), length, done + more)


@given(lengths, st.integers(0, 200))
def test_rounding_up_to_a_document(documents: list[int], token: int) -> None:
    stream = SourceStream(source_of(documents), "s", 4)
    token = min(token, stream.tokens)
    ends = stream._epoch(1).ends.tolist()
    rounded = stream.at_document(Cursor(1, token))
    assert rounded == Cursor(1, min(e for e in [0, *ends] if e >= token))


def test_every_epoch_has_an_order_of_its_own() -> None:
    stream = SourceStream(source_of([3] * 40), "s", 1)
    orders = {tuple(stream._epoch(epoch).order.tolist()) for epoch in range(4)}
    others = {
        tuple(SourceStream(source_of([3] * 40), name, seed)._epoch(0).order.tolist())
        for name, seed in (("s", 2), ("t", 1))
    }
    assert len(orders | others) == 6
    assert all(sorted(order) == list(range(40)) for order in orders | others)


def test_an_epoch_far_away_costs_no_more() -> None:
    stream = SourceStream(source_of([10] * 20), "s", 1)
    per_epoch = (200 - 1) // 8
    assert stream.locate(Cursor(), 8, 10**12 * per_epoch + 3) == Cursor(10**12, 24)
    assert len(window(stream, Cursor(10**12, 24), 8)) == 9
