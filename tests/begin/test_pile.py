"""A pile of text is measured: exactly where it is small, by a sample where it is large."""

import gzip
import json
from pathlib import Path

import pytest

from feldspar.begin import sample
from feldspar.begin.pile import measure_pile
from feldspar.core.errors import UserError
from feldspar.corpus.columns import arrow
from feldspar.recipe.sections.readers import TextReader
from tests.made_text import documents


def write_jsonl(path: Path, texts: list[str], field: str = "text") -> None:
    path.write_text("".join(json.dumps({field: text}) + "\n" for text in texts))


def test_a_small_pile_is_measured_exactly(tmp_path: Path) -> None:
    texts = documents(12, 300)
    pyarrow, parquet = arrow()
    for number, text in enumerate(texts[:4]):
        (tmp_path / f"{number}.md").write_text(text)
    write_jsonl(tmp_path / "a.jsonl", texts[4:8], "content")
    parquet.write_table(pyarrow.table({"body": texts[8:], "n": range(4)}), tmp_path / "b.parquet")
    pile = measure_pile([tmp_path])
    found = {source.finding.format: source for source in pile.sources}
    assert set(found) == {"text", "jsonl", "parquet"}
    assert all(source.documents == 4 and source.exact for source in pile.sources)
    assert pile.text_bytes == sum(len(text.encode()) for text in texts)
    assert found["jsonl"].settings.text_field == "content"
    assert found["parquet"].settings.text_field == "body"
    assert len({source.name for source in pile.sources}) == 3


def test_a_large_pile_is_estimated_by_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "SAMPLE_BYTES", 40_000)
    monkeypatch.setattr(sample, "WHOLE_SAMPLE_BYTES", 40_000)
    monkeypatch.setattr(sample, "PIECE_SAMPLE_BYTES", 1_500_000)
    texts = documents(200, 300)
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_text(text)
    many = [*texts] * 60
    packed = "".join(json.dumps({"text": text, "n": n}) + "\n" for n, text in enumerate(many))
    (tmp_path / "all.jsonl.gz").write_bytes(gzip.compress(packed.encode(), 0))
    for source, count in zip(measure_pile([tmp_path]).sources, (200, 12_000), strict=True):
        assert not source.exact and len(source.texts) < count
        assert abs(source.documents - count) < 0.4 * count


def test_a_folder_that_datasets_saved_is_measured(tmp_path: Path) -> None:
    texts = documents(5, 300)
    pyarrow, _ = arrow()
    table = pyarrow.table({"body": texts, "n": range(5)})
    with (
        pyarrow.OSFile(str(tmp_path / "data-0.arrow"), "wb") as file,
        pyarrow.ipc.new_stream(file, table.schema) as stream,
    ):
        stream.write_table(table)
    (tmp_path / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "data-0.arrow"}]})
    )
    (source,) = measure_pile([tmp_path]).sources
    assert (source.finding.format, source.settings.text_field) == ("huggingface", "body")
    assert (source.documents, source.files) == (5, 1)


def test_copies_and_short_documents_are_counted(tmp_path: Path) -> None:
    text = documents(1, 300)[0]
    write_jsonl(tmp_path / "a.jsonl", [text, text, "short", "tiny"])
    pile = measure_pile([tmp_path / "a.jsonl"])
    (source,) = pile.sources
    assert source.short_share == 0.5 and pile.many_short
    assert source.copied_share == pytest.approx(len(text) / (2 * len(text) + 9))
    assert pile.new_bytes == pytest.approx(len(text) + 9)


def test_files_that_are_no_text_are_left_out(tmp_path: Path) -> None:
    texts = documents(4, 300)
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_text(text)
    (tmp_path / "latin.txt").write_bytes("h\u00e4tte d\u00fcrfen".encode("latin-1") * 20)
    (tmp_path / "wide.txt").write_bytes(texts[0].encode("utf-16"))
    (tmp_path / "zero.txt").write_bytes(b"\0" * 300)
    (source,) = measure_pile([tmp_path]).sources
    assert source.documents == 4 and source.exact
    assert source.finding.exclude == ("latin.txt", "wide.txt", "zero.txt")
    with pytest.raises(UserError, match="no UTF-8 text"):
        measure_pile([tmp_path / "latin.txt"])


def test_names_of_sources_are_safe_and_distinct(tmp_path: Path) -> None:
    for name in ("my text", "other/my text", "---"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text("word " * 100)
    paths = [tmp_path / name for name in ("my text", "other/my text", "---")]
    names = [source.name for source in measure_pile(paths).sources]
    assert names == ["my-text-text", "my-text-text-2", "text"]


def test_one_long_file_is_cut_so_that_parts_can_be_held_out(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("\n\n".join(documents(40, 3000)))
    (source,) = measure_pile([tmp_path / "book.txt"]).sources
    reader = source.settings.reader
    assert isinstance(reader, TextReader) and reader.document_characters == 2000
    assert source.files == 1 and source.documents > 40
    assert "".join(source.texts) == (tmp_path / "book.txt").read_text()
