"""What is not UTF-8: replaced and counted in whatever form it comes, refused where it is much."""

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from feldspar.cli.main import run_with
from feldspar.core.errors import UserError
from feldspar.core.manifest import read_manifest
from feldspar.corpus.build import build_corpus
from feldspar.corpus.document import Tolerance
from feldspar.corpus.encoding import decode, repaired
from feldspar.corpus.readers.evaluation import evaluation_items
from feldspar.corpus.readers.package import archive_documents
from feldspar.recipe.sections.readers import Archive, PackageReader
from feldspar.report.corpus_report import corpus_page
from tests.corpus.conftest import corpus_settings, prose
from tests.corpus.test_readers import read
from tests.corpus.test_web_and_hub import response, warc_record

NEVER_UTF8 = st.integers(0xF8, 0xFF).map(lambda value: bytes([value]))
pieces = st.lists(st.one_of(st.text(max_size=8), NEVER_UTF8), max_size=12)


@given(pieces)
def test_each_bad_byte_is_one_replaced_character(pieces: list[str | bytes]) -> None:
    data = b"".join(each if isinstance(each, bytes) else each.encode() for each in pieces)
    expected = "".join("\ufffd" if isinstance(each, bytes) else each for each in pieces)
    if not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        bad = sum(isinstance(each, bytes) for each in pieces)
        assert repaired(decode(data, "x")) == (expected.removeprefix("\ufeff"), bad)


@given(st.text(st.characters(codec=None), max_size=30))
def test_repaired_texts_are_utf8_and_others_stay(text: str) -> None:
    found, replaced = repaired(text)
    assert found.encode().decode() == found and len(found) == len(text)
    assert replaced == sum("\ud800" <= each <= "\udfff" for each in text)
    assert repaired(found) == (found, 0)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-32-be"])
def test_another_unicode_encoding_is_no_damage(encoding: str) -> None:
    data = ("\ufeff" if encoding.endswith("be") else "").encode(encoding) + "a".encode(encoding)
    with pytest.raises(UserError, match="x is UTF-16 or UTF-32, not UTF-8"):
        decode(data, "x")


def found_in(path: Path, reader: Any, **more: Any) -> list[tuple[str, int]]:
    return [(document.text, document.replaced) for document in read(path, reader, **more)]


def test_files_of_text_and_of_code(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 \xff")
    (tmp_path / "b.txt").write_text("caf\u00e9 \ufffd")  # the character itself is no damage
    expected = [("caf\ufffd \ufffd", 2), ("caf\u00e9 \ufffd", 0)]
    assert found_in(tmp_path, "text") == expected
    assert found_in(tmp_path, {"type": "code", "suffixes": (".txt",)}) == expected


def test_json_lines_count_bytes_and_escapes_of_the_text_alone(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(
        b'{"text": "a\xe9", "note": "\xff"}\n'
        b'{"text": "\\ud800 \\ud83d\\ude00 \\udc00\\ud800"}\n'
        b'{"text": "plain", "note": "\\ud800"}\n'
    )
    expected = [("a\ufffd", 1), ("\ufffd \U0001f600 \ufffd\ufffd", 3), ("plain", 0)]
    assert found_in(tmp_path, "jsonl") == expected


def test_arrow_at_any_depth(tmp_path: Path) -> None:
    texts = pyarrow.array([b"caf\xe9", None, b"b"], pyarrow.binary()).view(pyarrow.string())
    nested = pyarrow.StructArray.from_arrays([texts.dictionary_encode()], names=["text"])
    listed = pyarrow.ListArray.from_arrays([0, 1, 2, 3], texts)
    table = pyarrow.table({"text": texts, "meta": nested, "list": listed, "n": [1, 2, 3]}).slice(
        0, 1
    )
    parquet.write_table(table, tmp_path / "x.parquet")
    assert found_in(tmp_path, "parquet") == [("caf\ufffd", 1)]
    assert found_in(tmp_path, "parquet", text_field="meta.text") == [("caf\ufffd", 1)]
    saved = tmp_path / "saved"
    saved.mkdir()
    with (
        pyarrow.OSFile(str(saved / "data.arrow"), "wb") as file,
        pyarrow.ipc.new_stream(file, table.schema) as writer,
    ):
        writer.write_table(table)
    (saved / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    reader = {"type": "huggingface", "split": "train"}
    assert found_in(saved, reader) == [("caf\ufffd", 1)]


def test_archives(tmp_path: Path) -> None:
    path = tmp_path / "p.tar"
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("p-1/\udce9.txt")  # a name of one Latin-1 byte
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"caf\xe9"))
    pinned = Archive(requirement="p==1", sha256="0" * 64)
    reader = PackageReader(type="package", archives=(pinned,), include=("*.txt",))
    (document,) = archive_documents("s", path, reader, None, Tolerance())
    assert (document.text, document.replaced) == ("caf\ufffd", 1)
    assert document.id == "s/p-1/\ufffd.txt"


def test_web_archives(tmp_path: Path) -> None:
    pytest.importorskip("fastwarc")
    pytest.importorskip("resiliparse")
    path = tmp_path / "x.warc"
    page = "<p>caf\u00e9 {} caf\u00e9 au lait</p>"
    records = [
        warc_record("conversion", "http://a/0", b"bad \xff"),
        # Windows-1252 that calls itself UTF-8 is read as what it is ...
        response("http://a/1", page.format("fin").encode("cp1252")),
        # ... but 0x81 stands for nothing there.
        response("http://a/2", page.format("\x81").encode("latin-1")),
    ]
    path.write_bytes(b"".join(records))
    wet, declared, damaged = found_in(tmp_path, "warc")
    assert wet == ("bad \ufffd", 1)
    assert declared == ("caf\u00e9 fin caf\u00e9 au lait", 0)
    assert damaged[0].count("\ufffd") == damaged[1] > 0


def test_names_of_files(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text(prose(1))
    settings = corpus_settings(
        tmp_path.with_name("out") / "docs", {"a": {"reader": "text", "path": str(tmp_path)}}
    )
    assert build_corpus(settings, settings.path).sources["a"].read.documents == 1


def test_an_evaluation_set_must_be_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    (tmp_path / "b.jsonl").write_bytes(b'{"q": "x"}\n{"q": "\\ud800"}\n')
    for name, place in (("a.txt", "a.txt"), ("b.jsonl", "b.jsonl:2: the record")):
        with pytest.raises(UserError, match=f"{place} is not UTF-8"):
            list(evaluation_items("set", tmp_path / name, (), Tolerance()))


@pytest.mark.parametrize(("characters", "allowed"), [(1000, True), (999, False)])
def test_one_character_in_a_thousand(
    characters: int, allowed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = prose(1, 300)[: characters - 1].encode() + b"\xe9"
    record = b'{"source": "web", "text": "%s"}\n'
    other = record.replace(b"web", b"books") % prose(2, 600).encode()
    path, out = tmp_path / "x.jsonl", tmp_path / "out"
    path.write_bytes(other + record % text)
    command = ["corpus", "dedup", str(path), "--out", str(out), "--engine", "serial"]
    assert run_with(command) == (0 if allowed else 2)
    shown = capsys.readouterr()
    if allowed:
        told = "characters that are not UTF-8 were replaced by U+FFFD: 1 of web"
        assert told in shown.out.splitlines()
        manifest = read_manifest(out, "deduplication")
        assert manifest.warnings == [told]
        by_source = manifest.counts["by_source"]
        counts = [by_source[name]["replaced_characters"] for name in ("books", "web")]
        assert counts == [0, 1]
        assert "Characters that are not UTF-8, replaced by U+FFFD: 1 of web." in corpus_page(out)
    else:
        assert (
            "source web: 1 of 999 characters (0.10%) are not UTF-8, in 1 documents; "
            "the first is x.jsonl:2"
        ) in shown.err
        assert [each.name for each in tmp_path.iterdir()] == ["x.jsonl"]


def test_counts_are_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    text = os.urandom(2_500_000).hex().encode()  # more than a part each
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"".join(b'{"text": "%s\xe9"}\n' % text[start:] for start in range(3)))
    reports = []
    for workers in (1, 2):
        settings = corpus_settings(
            tmp_path / str(workers),
            {"web": {"reader": "jsonl", "path": str(path)}},
            deduplicate=None,
            split={"decontamination": "exact"},
        )
        reports.append(build_corpus(settings, settings.path, workers=workers))
    assert reports[0].sources["web"].replaced_characters == 3
    assert reports[0].to_json() == reports[1].to_json()
