"""Web archives, Hugging Face folders and nested fields; poisoned records harm nothing."""

import gzip
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from feldspar.core.errors import UserError
from feldspar.corpus.document import Document
from feldspar.corpus.files import deduplicate_files
from feldspar.corpus.readers.blocks import bounded_lines
from feldspar.recipe.sections.corpus import DeduplicateSettings
from tests.corpus.conftest import prose
from tests.corpus.test_readers import read

PAGE = (
    "<html><head><title>t</title><script>var x = 1;</script></head><body>"
    "<nav><a href='/'>Home</a></nav><main><article><h1>Rocks</h1>"
    "<p>Feldspar is a group of minerals. </p></article></main></body></html>"
)


def warc_record(kind: str, address: str, content: bytes, media: str = "text/plain") -> bytes:
    """One record, written by hand after ISO 28500."""
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {address}\r\n"
        "WARC-Date: 2024-01-01T00:00:00Z\r\n"
        "WARC-Record-ID: <urn:uuid:12345678-1234-1234-1234-123456789abc>\r\n"
        f"Content-Type: {media}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content + b"\r\n\r\n"


def answer(body: bytes, media: str = "text/html; charset=utf-8", status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {media}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def response(address: str, body: bytes, *more: str) -> bytes:
    media = "application/http; msgtype=response"
    return warc_record("response", address, answer(body, *more), media)


@pytest.mark.parametrize("ending", ["warc.wet", "warc.wet.gz"])
def test_wet(tmp_path: Path, ending: str) -> None:
    pytest.importorskip("fastwarc")
    records = [
        warc_record("warcinfo", "", b"software: x"),
        warc_record("conversion", "http://a/1", "one \u00e9".encode()),
        warc_record("conversion", "http://a/2", b"two"),
    ]
    if ending.endswith("gz"):
        records = [gzip.compress(record) for record in records]
    (tmp_path / f"x.{ending}").write_bytes(b"".join(records))
    found = read(tmp_path, "warc")
    assert [(document.text, document.group) for document in found] == [
        ("one \u00e9", "http://a/1"),
        ("two", "http://a/2"),
    ]
    assert found[0].origin == f"x.{ending}:{len(records[0])}"
    assert found[0].id == f"s/{found[0].origin}"


def test_pages_lose_their_markup_and_other_records_are_passed_over(tmp_path: Path) -> None:
    pytest.importorskip("resiliparse")
    records = [
        warc_record("request", "http://a/", b"GET / HTTP/1.1\r\n\r\n", "application/http"),
        response("http://a/", PAGE.encode()),
        response(
            "http://a/latin", "<p>caf\u00e9</p>".encode("latin-1"), "text/html; charset=latin-1"
        ),
        response("http://a/plain", b"plain text", "text/plain"),
        response("http://a/gone", b"gone", "text/html", "404 Not Found"),
        response("http://a/image", b"\x89PNG", "image/png"),
    ]
    (tmp_path / "x.warc").write_bytes(b"".join(records))
    found = {document.group: document.text for document in read(tmp_path, "warc")}
    assert set(found) == {"http://a/", "http://a/latin", "http://a/plain"}
    assert "Feldspar is a group of minerals." in found["http://a/"]
    assert not {"<p>", "var x", "Home"} & {
        w for w in ("<p>", "var x", "Home") if w in found["http://a/"]
    }
    whole = read(tmp_path, {"type": "warc", "main_content": False})
    assert "Home" in whole[0].text
    assert found["http://a/plain"] == "plain text"


def test_bad_web_archives(tmp_path: Path) -> None:
    pytest.importorskip("fastwarc")
    path = tmp_path / "x.warc.wet"
    good = warc_record("conversion", "http://a/1", b"good")
    path.write_bytes(warc_record("conversion", "http://a/0", b"\xff\xfeb\0") + good)
    with pytest.raises(UserError, match=r"x.warc.wet:0 is UTF-16"):
        read(tmp_path, "warc")
    assert [document.text for document in read(tmp_path, "warc", skip_bad=1)] == ["good"]
    path.write_bytes(b"no archive at all\n" * 9)
    with pytest.raises(UserError, match=r"x\.warc\.wet is"):
        read(tmp_path, "warc")
    path.write_bytes(b"")
    with pytest.raises(UserError, match="is empty"):
        read(tmp_path, "warc")


ROWS = [{"id": "a", "text": "one", "n": 1}, {"id": "b", "text": "two", "n": 2}]


def save_to_disk(folder: Path, rows: list[dict[str, Any]]) -> None:
    """What ``Dataset.save_to_disk`` leaves, as far as it is read."""
    folder.mkdir(parents=True)
    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema) as stream:
        stream.write_table(table, max_chunksize=1)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
    (folder / "state.json").write_text(json.dumps(state))


def test_folders_that_datasets_saved(tmp_path: Path) -> None:
    save_to_disk(tmp_path / "one", ROWS)
    expected = [
        Document("a", "s", "one", "a", "data-00000-of-00001.arrow:1"),
        Document("b", "s", "two", "b", "data-00000-of-00001.arrow:2"),
    ]
    assert read(tmp_path / "one", "huggingface") == expected
    save_to_disk(tmp_path / "many" / "test", ROWS[1:])
    (tmp_path / "many" / "dataset_dict.json").write_text('{"splits": ["test"]}')
    reader = {"type": "huggingface", "split": "test"}
    assert [document.text for document in read(tmp_path / "many", reader)] == ["two"]
    with pytest.raises(UserError, match="holds no split 'train'"):
        read(tmp_path / "many", "huggingface")
    (tmp_path / "one" / "state.json").write_text('{"_data_files": [{"filename": "../x.arrow"}]}')
    with pytest.raises(UserError, match="outside of its folder"):
        read(tmp_path / "one", "huggingface")


def test_the_library_saves_what_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).select([1, 0]).save_to_disk(tmp_path / "saved")
    assert [document.id for document in read(tmp_path / "saved", "huggingface")] == ["b", "a"]


def test_copies_of_data_repositories(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    table = pyarrow.Table.from_pylist
    parquet.write_table(table(ROWS), tmp_path / "data" / "train-00000-of-00001.parquet")
    parquet.write_table(table(ROWS[:1]), tmp_path / "data" / "dev-00000-of-00001.parquet")
    assert [document.text for document in read(tmp_path, "huggingface")] == ["one", "two"]
    for name in ("validation", "dev"):
        reader = {"type": "huggingface", "split": name}
        assert [document.text for document in read(tmp_path, reader)] == ["one"]
    with pytest.raises(UserError, match="no file of the split 'test'") as caught:
        read(tmp_path, {"type": "huggingface", "split": "test"})
    assert caught.value.allowed == "train, validation"


def test_names_are_read_through_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    reader = {"type": "huggingface", "name": str(folder)}
    found = read(None, reader)
    assert [(document.id, document.text) for document in found] == [("a", "one"), ("b", "two")]
    assert found[0].origin == f"{folder}:train:1"
    with pytest.raises(UserError, match="downloads are off"):
        read(None, {"type": "huggingface", "name": "somebody/something"})


def test_fields_inside_fields_and_only_some_records(tmp_path: Path) -> None:
    rows = [
        {"body": {"text": "one"}, "meta": {"set": "RedPajamaC4"}},
        {"body": {"text": "two"}, "meta": {"set": "RedPajamaBook"}},
        {"body": {"text": "three"}, "meta": {}},
    ]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    mapping = {"text_field": "body.text", "only": {"meta.set": "RedPajamaBook"}}
    for ending in ("jsonl", "parquet"):
        (found,) = read(tmp_path / f"x.{ending}", ending, **mapping)
        assert (found.text, found.origin) == ("two", f"x.{ending}:2")


@given(st.lists(st.binary(max_size=5)), st.integers(0, 6))
def test_bounded_lines_are_lines(blocks: list[bytes], longest: int) -> None:
    whole = b"".join(blocks)
    lines: Iterable[bytes] = whole.split(b"\n")
    expected = [line if len(line) <= longest else None for line in lines]
    if expected[-1] == b"":
        expected.pop()
    assert list(bounded_lines(blocks, longest)) == expected
    assert [line.rstrip(b"\n") for line in io.BytesIO(whole)] == list(bounded_lines(blocks, 99))


def test_poisoned_records_harm_nothing(tmp_path: Path) -> None:
    good = [json.dumps({"source": "web", "text": prose(i)}).encode() for i in range(3)]
    poison = [
        b'{"source": "web", "text": "' + b"x" * 100_000_000 + b'"}',
        b'{"source": "web", "id": "\xff\xfe", "text": "a"}',
        b'{"source": "web", "text": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"source": "../x", "text": "a"}',
        b'{"source": "/etc/x", "text": "a"}',
        b'{"source": "a\\u0000b", "text": "a"}',
        b'{"source": "..", "text": "a"}',
        b'{"source": "web", "id": {"a": 1}, "text": "a"}',
        b'{"source": "web", "text": {"text": "a"}}',
    ]
    lines = [good[0], *poison, *good[1:]]
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(lines))
    report = deduplicate_files(
        [tmp_path / "x.jsonl"], tmp_path / "out", DeduplicateSettings(), skip_bad=len(poison)
    )
    assert {name: counts.kept.documents for name, counts in report.sources.items()} == {"web": 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.jsonl"]
    with pytest.raises(UserError, match=r"x.jsonl:2 is longer than 64 MiB"):
        deduplicate_files([tmp_path / "x.jsonl"], tmp_path / "two", DeduplicateSettings())
    assert not (tmp_path / "two").exists()
