"""Building shards: what is in the files, who decides it, and when nothing is built."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from feldspar.core.errors import FeldsparError, UserError
from feldspar.core.files import TEMPORARY_MARK
from feldspar.core.manifest import read_manifest
from feldspar.core.progress import listening
from feldspar.corpus.store import documents as read_documents
from feldspar.recipe.sections.tokens import HuggingFaceTokenizer, ShardSettings, TrainBpe
from feldspar.tokens.shards.build_shards import SERIAL_BYTES, build_shards
from feldspar.tokens.shards.shard_folder import ShardSet
from feldspar.tokens.tokenizer import document_encoding as encoding
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from tests.tokens.conftest import some_texts, write_documents


class Told:
    """Keeps the lines of news."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def start(self, title: str, total: float | None, unit: str):
        return lambda amount: None

    def finish(self) -> None: ...

    def say(self, line: str) -> None:
        self.lines.append(line)


def texts_of(shards: ShardSet, split: str, source: str) -> list[str]:
    """Every document's text, its end-of-document token checked and cut off."""
    tokenizer = TextTokenizer.load(shards.tokenizer)
    found = shards.read(split, source)
    texts = []
    for index in range(len(found.lengths)):
        ids = found.document(index)
        assert np.flatnonzero(ids == shards.end_of_document_id).tolist() == [len(ids) - 1]
        texts.append(tokenizer.decode(ids[:-1]))
    return texts


def test_every_document_once_each_with_one_end(shards: ShardSet, documents: Path) -> None:
    for split, source in (("train", "prose"), ("train", "code"), ("validation", "prose")):
        given = [d.text for d in read_documents(documents, split, source) if d.text.strip()]
        found = texts_of(shards, split, source)
        assert sorted(found) == sorted(given)
        assert found != given
        assert shards.documents(split, source) == len(given)
        assert shards.text_bytes(split, source) == sum(len(text.encode()) for text in given)
        assert shards.tokens(split, source) == shards.read(split, source).tokens
    assert shards.counts("train", "prose").empty_documents == 2


def test_shards_are_cut_at_document_ends(shards: ShardSet) -> None:
    files = shards.read("train", "prose").files
    assert len(files) > 3
    for tokens in files:
        assert tokens.dtype == "<u2"
        assert tokens[-1] == shards.end_of_document_id
    for tokens in files[:-1]:
        last = np.flatnonzero(tokens[:-1] == shards.end_of_document_id)[-1] + 1
        assert last < 5000 <= len(tokens)


def test_the_manifest_tells_where_the_shards_come_from(shards: ShardSet, documents: Path) -> None:
    manifest = read_manifest(shards.path, "shards")
    assert manifest.parents == {"documents": read_manifest(documents, "documents").digest}
    assert manifest.counts["tokenizer_digest"] == TextTokenizer.load(shards.tokenizer).digest
    assert (manifest.counts["vocab_size"], manifest.counts["dtype"]) == (300, "<u2")
    ratios = manifest.counts["splits"]["train"]["code"]
    own = ratios["tokens"] - ratios["documents"]
    assert ratios["tokens_per_word"] == own / ratios["words"]
    assert ratios["bytes_per_token"] == ratios["text_bytes"] / own


def test_units_and_processes_change_nothing(
    shards: ShardSet,
    documents: Path,
    bpe: TrainBpe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoding, "UNIT_CHARACTERS", 300)
    settings = ShardSettings(path=tmp_path / "shards", shard_tokens=5000)
    assert build_shards(documents, bpe, settings, seed=5, workers=1).digest == shards.digest


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(
    bpe: TrainBpe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feldspar.tokens.shards.build_shards.SERIAL_BYTES", 0)
    assert SERIAL_BYTES > 0
    folder = write_documents(
        tmp_path / "documents", {"train": {"a": some_texts(1, 4000, 400), "b": some_texts(2, 50)}}
    )
    digests = {
        build_shards(
            folder, bpe, ShardSettings(path=tmp_path / f"{workers}"), seed=5, workers=workers
        ).digest
        for workers in (1, 2, 3)
    }
    assert len(digests) == 1


def test_the_place_of_a_document_is_no_part_of_its_order(bpe: TrainBpe, tmp_path: Path) -> None:
    texts = some_texts(1, 50)
    found = []
    for name, given in (("forward", texts), ("backward", texts[::-1])):
        folder = write_documents(tmp_path / name, {"train": {"a": given}})
        settings = ShardSettings(path=tmp_path / f"{name}-shards")
        build_shards(folder, TrainBpe(vocab_size=280), settings, seed=1)
        found.append(texts_of(ShardSet.open(settings.path), "train", "a"))
    assert found[0] == found[1]


def test_the_seed_decides_the_order(
    shards: ShardSet, documents: Path, bpe: TrainBpe, tmp_path: Path
) -> None:
    settings = ShardSettings(path=tmp_path / "shards", shard_tokens=5000)
    build_shards(documents, bpe, settings, seed=6)
    other = texts_of(ShardSet.open(settings.path), "train", "code")
    assert other != texts_of(shards, "train", "code")
    assert sorted(other) == sorted(texts_of(shards, "train", "code"))


def test_a_finished_folder_is_kept(documents: Path, bpe: TrainBpe, tmp_path: Path) -> None:
    settings = ShardSettings(path=tmp_path / "shards")
    first = build_shards(documents, bpe, settings, seed=5)
    made = (settings.path / "manifest.json").stat().st_mtime_ns
    told = Told()
    with listening(told):
        again = build_shards(documents, bpe, settings, seed=5)
    assert told.lines == [f"{settings.path} is up to date"]
    assert (settings.path / "manifest.json").stat().st_mtime_ns == made
    assert (first.up_to_date, again.up_to_date) == (False, True)
    assert again.splits == {
        split: dict(sorted(sources.items())) for split, sources in first.splits.items()
    }


def test_a_damaged_folder_is_refused_and_built_again_on_request(
    documents: Path, bpe: TrainBpe, tmp_path: Path
) -> None:
    settings = ShardSettings(path=tmp_path / "shards")
    whole = build_shards(documents, bpe, settings, seed=5, workers=1)
    for name in ("train/prose/00000.tokens", "manifest.json"):
        path = settings.path / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
        with pytest.raises(FeldsparError) as caught:
            build_shards(documents, bpe, settings, seed=5, workers=1)
        assert caught.value.exit_code in (2, 4) and name in str(caught.value)
        again = build_shards(documents, bpe, settings, seed=5, workers=1, overwrite=True)
        assert not again.up_to_date and again.digest == whole.digest
        ShardSet.open(settings.path).verify()


def test_other_settings_need_overwrite(documents: Path, bpe: TrainBpe, tmp_path: Path) -> None:
    settings = ShardSettings(path=tmp_path / "shards")
    first = build_shards(documents, bpe, settings, seed=5)
    with pytest.raises(UserError, match="was built with other settings"):
        build_shards(documents, bpe, settings, seed=6)
    other = build_shards(documents, bpe, settings, seed=6, overwrite=True)
    assert other.digest != first.digest
    assert [p for p in tmp_path.iterdir() if TEMPORARY_MARK in p.name] == []


def test_other_documents_need_overwrite(bpe: TrainBpe, tmp_path: Path) -> None:
    one, two = (
        write_documents(tmp_path / name, {"train": {"a": some_texts(seed, 100)}})
        for name, seed in (("one", 1), ("two", 2))
    )
    settings = ShardSettings(path=tmp_path / "shards")
    build_shards(one, bpe, settings, seed=5)
    with pytest.raises(UserError, match="was built from other documents"):
        build_shards(two, bpe, settings, seed=5)


def test_something_else_is_not_overwritten_by_accident(
    documents: Path, bpe: TrainBpe, tmp_path: Path
) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"holds no manifest\.json"):
            build_shards(documents, bpe, ShardSettings(path=tmp_path), seed=5, overwrite=overwrite)
    assert (tmp_path / "letter.txt").read_text() == "dear"


def test_what_a_killed_build_left_is_removed(
    documents: Path, bpe: TrainBpe, tmp_path: Path
) -> None:
    left = tmp_path / f"shards{TEMPORARY_MARK}12345678"
    left.mkdir()
    build_shards(documents, bpe, ShardSettings(path=tmp_path / "shards"), seed=5)
    assert not left.exists()


def test_a_tokenizer_from_files_counts_by_content(
    shards: ShardSet, documents: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(shards.tokenizer, tmp_path / "copy")
    settings = ShardSettings(path=tmp_path / "shards", shard_tokens=5000)
    first = build_shards(
        documents, HuggingFaceTokenizer(path=str(shards.tokenizer)), settings, seed=5
    )
    again = build_shards(documents, HuggingFaceTokenizer(path=str(copy)), settings, seed=5)
    assert again.up_to_date
    assert first.splits["train"] == {
        name: shards.counts("train", name) for name in ("prose", "code")
    }


def test_documents_that_are_not_there(bpe: TrainBpe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"manifest\.json"):
        build_shards(tmp_path / "none", bpe, ShardSettings(path=tmp_path / "shards"), seed=5)
