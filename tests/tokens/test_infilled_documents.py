"""Documents transformed before packing: nothing is lost, and reading is a pure function."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from feldspar.core.files import cache_folder
from feldspar.recipe.sections.phase_data import FillInTheMiddle, Select
from feldspar.tokens.sequences import infilled_documents, infilled_stream
from feldspar.tokens.sequences.infilled_documents import InfilledSource
from feldspar.tokens.sequences.infilled_stream import InfilledStream
from feldspar.tokens.sequences.phase_sequences import PhaseData, SequenceReader
from feldspar.tokens.sequences.resolve import MeasuredTokens, tokens_of
from feldspar.tokens.sequences.stream import Cursor, SourceStream
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.tokens.tokenizer.infilling import Sentinels
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from tests.tokens.conftest import infilling, restored, segments

MOST = infilling(0.9, scope="document")
SOME = infilling(0.3, scope="document")
LENGTH = 24
ONLY = {"code": Fraction(1)}
HALF = {"prose": Fraction(1, 2), "code": Fraction(1, 2)}
SEED = 3


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache: nothing that another test measured is found."""
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache" / "infilled"


def stream_of(shards: ShardSet, how: FillInTheMiddle = MOST) -> InfilledStream:
    return InfilledStream(InfilledSource("train", "code", None, how, SEED), shards)


def texts_in_order(shards: ShardSet, epoch: int) -> list[str]:
    """The documents of an epoch in the order of the stream without a transformation."""
    tokenizer = TextTokenizer.load(shards.tokenizer, shards.end_of_document)
    source = shards.read("train", "code")
    order = SourceStream(source, "code", SEED)._epoch(epoch).order
    return [tokenizer.decode(source.document(int(index))[:-1]) for index in order]


def texts_read(shards: ShardSet, tokens: np.ndarray) -> list[str]:
    """The whole documents of a stream, with each transformation undone."""
    tokenizer = TextTokenizer.load(shards.tokenizer, shards.end_of_document)
    sentinels = Sentinels.of(tokenizer)
    return [
        restored(tokenizer, sentinels, part)
        if part[:1] == [sentinels.prefix]
        else tokenizer.decode(part)
        for part in segments(tokens.tolist(), shards.end_of_document_id)[:-1]
    ]


def test_joined_rows_are_the_documents_of_each_epoch(infilling_shards: ShardSet) -> None:
    stream = stream_of(infilling_shards)
    windows = [(stream.tokens_in(epoch) - 1) // LENGTH for epoch in range(3)]
    phase = PhaseData("p", ONLY, LENGTH, sum(windows), infillings={"code": MOST})
    read = SequenceReader(infilling_shards, [phase], SEED, shuffled=False).read(0, 0, sum(windows))
    assert read.label_mask is None and read.cut_tokens == 0
    assert len(set(windows)) > 1, "lengths differ from epoch to epoch"
    first = 0
    for epoch, count in enumerate(windows):
        rows = read.tokens[first : first + count]
        assert np.array_equal(rows[:-1, -1], rows[1:, 0])
        joined = np.append(rows[:, :-1].ravel(), rows[-1, -1])
        assert 0 <= stream.tokens_in(epoch) - len(joined) < LENGTH
        found, expected = (
            texts_read(infilling_shards, joined),
            texts_in_order(infilling_shards, epoch),
        )
        # Only what does not fill a window at the end of an epoch is missing.
        assert found == expected[: len(found)] and len(found) >= len(expected) - LENGTH
        first += count


def test_shuffled_windows_are_each_read_once_an_epoch(infilling_shards: ShardSet) -> None:
    stream = stream_of(infilling_shards)
    windows = sum((stream.tokens_in(epoch) - 1) // LENGTH for epoch in range(2))
    phase = PhaseData("p", ONLY, LENGTH, windows, infillings={"code": MOST})
    rows = [
        sorted(map(bytes, SequenceReader(infilling_shards, [phase], SEED, shuffled=mixed).read(
            0, 0, windows
        ).tokens))
        for mixed in (True, False)
    ]  # fmt: skip
    assert rows[0] == rows[1]


def test_shares_and_epochs(infilling_shards: ShardSet) -> None:
    sentinels = Sentinels.of(TextTokenizer.load(infilling_shards.tokenizer))
    stream = stream_of(infilling_shards)
    documents = len(stream.lengths_in(0))
    first, second = (
        [stream.document(epoch, index).tolist() for index in range(documents)] for epoch in (0, 1)
    )
    count = sum(document[0] == sentinels.prefix for document in first)
    # Five standard deviations of a binomial distribution.
    assert abs(count - 0.9 * documents) < 5 * (documents * 0.9 * 0.1) ** 0.5
    assert sum(one == two for one, two in zip(first, second, strict=True)) < documents / 5
    assert [len(document) for document in first] == stream.lengths_in(0).tolist()
    assert max(map(max, first)) < infilling_shards.vocab_size


def test_any_slice_at_any_time_reads_the_same(infilling_shards: ShardSet) -> None:
    phases = [
        PhaseData("one", HALF, LENGTH, 500, "mask", infillings={"code": MOST}),
        PhaseData("two", HALF, LENGTH, 100, infillings={"code": SOME, "prose": infilling(0.5)}),
    ]
    whole = [SequenceReader(infilling_shards, phases, SEED).read(n, 0, 100) for n in (0, 1)]
    assert whole[0].label_mask is None and whole[1].label_mask is not None
    for start, stop in ((0, 1), (1, 64), (64, 100)):
        for index in (1, 0):
            part = SequenceReader(infilling_shards, phases, SEED).read(index, start, stop)
            assert np.array_equal(part.tokens, whole[index].tokens[start:stop])
    ids = whole[0].document_ids
    assert ids is not None
    ended = np.cumsum(whole[0].tokens[:, :-1] == infilling_shards.end_of_document_id, axis=1)
    assert np.array_equal(ids[:, 1:], ended[:, :-1])
    other_seed = SequenceReader(infilling_shards, phases, SEED + 1).read(0, 0, 100)
    assert not np.array_equal(other_seed.tokens, whole[0].tokens)


def test_a_phase_goes_on_at_the_next_document_of_the_same_order(
    infilling_shards: ShardSet,
) -> None:
    plain, many, some = {}, {"code": MOST}, {"code": SOME}
    phases = [
        PhaseData(f"p{number}", ONLY, LENGTH, 23, infillings=how)
        for number, how in enumerate((plain, many, some, plain, plain))
    ]
    reader = SequenceReader(infilling_shards, phases, SEED, shuffled=False)
    expected, place = texts_in_order(infilling_shards, 0), 0
    for index in range(4):
        rows = reader.read(index, 0, 23).tokens
        inputs = rows[:, :-1].ravel()
        found = texts_read(infilling_shards, inputs)
        assert found and found == expected[place : place + len(found)]
        # A document that the phase stops in is not read again.
        place += len(found) + (inputs[-1] != infilling_shards.end_of_document_id)
    # Without a change of the transformation the next phase goes on at the same token.
    assert reader.cursors(4)["code"] == reader.cursors(3, 23)["code"]
    assert reader.cursors(2)["code"].token > 0


def test_selected_parts_are_transformed_too(infilling_shards: ShardSet) -> None:
    half = Select(range=(0.0, 0.5))
    phase = PhaseData("p", ONLY, LENGTH, 40, selections={"code": half}, infillings={"code": MOST})
    reader = SequenceReader(infilling_shards, [phase], SEED, shuffled=False)
    part = InfilledSource("train", "code", half, MOST, SEED)
    assert part.part == half.label("code")
    tokens = InfilledStream(part, infilling_shards).tokens
    assert reader.epochs(0) == {"code": 40 * LENGTH / tokens}
    documents = set(texts_in_order(infilling_shards, 0))
    found = texts_read(infilling_shards, reader.read(0, 0, 40).tokens[:, :-1].ravel())
    assert found and set(found) < documents


def test_lengths_are_kept_and_a_damaged_file_is_measured_again(
    infilling_shards: ShardSet, own_cache: Path
) -> None:
    stream = stream_of(infilling_shards)
    (kept,) = own_cache.glob("*.npy")
    lengths = np.load(kept)
    assert lengths.tolist() == stream.lengths_in(0).tolist()
    # The file is used: lengths that nobody measured come back.
    np.save(kept, lengths + np.uint32(1))
    assert stream_of(infilling_shards).tokens == stream.tokens + len(lengths)
    for damaged in (b"", b"lengths", kept.read_bytes()[:-3]):
        kept.write_bytes(damaged)
        assert stream_of(infilling_shards).tokens == stream.tokens
    np.save(kept, lengths[:-1])
    assert stream_of(infilling_shards).tokens == stream.tokens
    assert stream_of(infilling_shards, SOME).tokens != stream.tokens
    assert len(list(own_cache.glob("*.npy"))) == 2


def test_without_a_cache_it_is_measured(
    infilling_shards: ShardSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = stream_of(infilling_shards).tokens
    (tmp_path / "file").touch()
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path / "file" / "cache"))
    assert not cache_folder().exists()
    assert stream_of(infilling_shards).tokens == expected


def test_several_processes_measure_the_same(
    infilling_shards: ShardSet, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = stream_of(infilling_shards).lengths_in(0)
    for kept in own_cache.glob("*.npy"):
        kept.unlink()
    monkeypatch.setattr(infilled_documents, "SERIAL_TOKENS", 0)
    monkeypatch.setattr(infilled_documents, "UNIT_TOKENS", 1000)
    monkeypatch.setattr(infilled_documents, "available_cores", lambda: 2)
    assert np.array_equal(stream_of(infilling_shards).lengths_in(0), expected)


def test_documents_in_memory_are_limited(
    infilling_shards: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infilled_stream, "TOKENS_IN_MEMORY", 500)
    stream, window = stream_of(infilling_shards), np.empty(LENGTH + 1, np.int64)
    whole = np.concatenate([stream.document(0, int(index)) for index in stream._epoch(0).order])
    for token in range(0, stream.tokens - LENGTH - 1, LENGTH):
        stream.copy_window(Cursor(0, token), window)
        assert np.array_equal(window, whole[token : token + LENGTH + 1])
        assert sum(map(len, stream._held.values())) == stream._held_tokens <= 500


def test_a_pass_counts_transformed_tokens() -> None:
    measured = MeasuredTokens({"a": 1000}, {MOST.label("a"): 1090})
    assert tokens_of(measured, "a", None, MOST) == 1090
    assert tokens_of(measured, "a", None, infilling(0.9)) == 1000
    assert tokens_of({"a": 1000}, "a", None, MOST) == 1000
    assert tokens_of({"a": 1000}, "a", Select(files="even"), MOST) == 500
