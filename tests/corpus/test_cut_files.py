"""Files that end too early, archives that do not open, pages of unknown encodings: all told."""

import gzip
import json
import struct
import zipfile
from pathlib import Path

import pytest
import zstandard

from feldspar.core.errors import UserError
from feldspar.corpus.build import build_corpus
from feldspar.corpus.document import Tolerance
from feldspar.corpus.readers.evaluation import evaluation_items
from feldspar.corpus.readers.members import read_members
from feldspar.corpus.readers.sources import read_source
from feldspar.recipe.sections.corpus import SourceSettings
from tests.corpus.conftest import corpus_settings, prose
from tests.corpus.test_readers import read
from tests.corpus.test_web_and_hub import response, warc_record

TEXTS = ("one", "two", "three")
RECORDS = [warc_record("conversion", f"http://a/{text}", text.encode()) for text in TEXTS]


def packed(form: str) -> tuple[str, list[bytes]]:
    """An ending and the parts of a web archive after which a cut cannot be seen."""
    if form == "gzip":
        return "warc.wet.gz", [gzip.compress(record) for record in RECORDS]
    if form == "gzip of all":
        return "warc.wet.gz", [gzip.compress(b"".join(RECORDS))]
    if form == "zstandard":
        return "warc.wet.zst", [zstandard.compress(record) for record in RECORDS]
    return "warc.wet", RECORDS


def texts(path: Path, tolerance: Tolerance) -> list[str]:
    """Read a web archive."""
    settings = SourceSettings.model_validate({"reader": "warc", "path": path}, strict=False)
    return [document.text for document in read_source("s", settings, tolerance, offline=True)]


@pytest.mark.parametrize("form", ["plain", "gzip", "gzip of all", "zstandard"])
def test_a_web_archive_that_was_cut_is_refused_or_counted(tmp_path: Path, form: str) -> None:
    pytest.importorskip("fastwarc")
    ending, parts = packed(form)
    path = tmp_path / f"x.{ending}"
    whole = b"".join(parts)
    seams = {sum(map(len, parts[:count])): count for count in range(1, len(parts))}
    path.write_bytes(whole)
    assert texts(path, Tolerance()) == list(TEXTS)
    near = {seam + step for seam in (*seams, len(whole)) for step in range(-9, 9)}
    for end in sorted((near | set(range(1, len(whole), 11))) & set(range(1, len(whole)))):
        path.write_bytes(whole[:end])
        if end in seams:
            assert texts(path, Tolerance()) == list(TEXTS[: seams[end]])
            continue
        with pytest.raises(UserError, match=r"x\.warc\.wet\S* is truncated or damaged"):
            texts(path, Tolerance())
        tolerance = Tolerance(1)
        left = texts(path, tolerance)
        assert left == list(TEXTS[: len(left)]) and len(left) < len(TEXTS)
        assert tolerance.skipped == {"s": 1}


@pytest.mark.parametrize("change", [(b"WARC/1.0", b"WARC/9"), (b"\r\n", b"\n")])
def test_records_that_the_parser_passes_over_are_told_of(
    tmp_path: Path, change: tuple[bytes, bytes]
) -> None:
    pytest.importorskip("fastwarc")
    path = tmp_path / "x.warc.wet"
    path.write_bytes(RECORDS[0] + RECORDS[1].replace(*change) + RECORDS[2])
    with pytest.raises(UserError, match=r"x\.warc\.wet: \d of 3 records cannot be read"):
        texts(path, Tolerance())
    tolerance = Tolerance(1)
    assert "one" in texts(path, tolerance)
    assert tolerance.skipped == {"s": 1}


def test_a_web_archive_with_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("fastwarc")
    ending, parts = packed("gzip")
    whole = b"".join(parts)
    path = tmp_path / f"x.{ending}"
    start = len(parts[0]) + 20
    for place in range(start, start + len(parts[1]) - 20):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with pytest.raises(UserError, match="is truncated or damaged"):
            texts(path, Tolerance())


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_compressed_lines_that_were_cut_are_refused(tmp_path: Path, ending: str) -> None:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()
    pack = gzip.compress if ending == "gz" else zstandard.compress
    whole = pack(lines) + pack(lines)
    path = tmp_path / f"x.jsonl.{ending}"
    for end in set(range(1, len(whole))) - {len(pack(lines))}:
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match="is truncated or damaged"):
            read(path, "jsonl")


@pytest.mark.parametrize("charset", ["utf8mb4", "none", "x-user-defined", "base64", "idna", "\x00"])
def test_an_unknown_encoding_is_read_by_its_bytes_and_counted(tmp_path: Path, charset: str) -> None:
    pytest.importorskip("resiliparse")
    media = f"text/html; charset={charset}"
    page = f"<p>caf\u00e9 {prose(1)}</p>"
    records = [
        response("http://a/1", page.encode(), media),
        response("http://a/2", page.encode("latin-1"), media),
        response("http://a/3", f"<p>caf\u00e9 {prose(2)}</p>".encode("latin-1"), "text/html"),
    ]
    (tmp_path / "x.warc").write_bytes(b"".join(records))
    found = read(tmp_path / "x.warc", "warc")
    assert [document.text[:4] for document in found] == ["caf\u00e9"] * 3
    assert [document.replaced for document in found] == [0, 0, 0]
    sources = {"web": {"reader": "warc", "path": str(tmp_path / "x.warc")}}
    settings = corpus_settings(tmp_path / "out", sources, deduplicate=None)
    report = build_corpus(settings, settings.path)
    assert report.sources["web"].noted == {"unknown encoding": 2}
    assert "2 of web: unknown encoding" in report.warnings


def test_a_label_of_the_encoding_standard_is_known(tmp_path: Path) -> None:
    pytest.importorskip("resiliparse")
    text = "\u30c6\u30b9\u30c8"
    (tmp_path / "x.warc").write_bytes(
        response("http://a/", f"<p>{text}</p>".encode("shift_jis"), "text/html; charset=x-sjis")
    )
    (document,) = read(tmp_path, "warc")
    assert document.text == text


def test_an_encrypted_member_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("top/a.txt", "secret")
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.index(signature) + offset
        struct.pack_into("<H", data, place, 1)  # the flag of an encrypted member
    path.write_bytes(data)
    with pytest.raises(UserError, match="encrypted"):
        list(read_members(path, lambda name: True))


DEEP = 900
"""Levels that Python's parser reads, and that a recursive walk through them may not survive."""


def test_deeply_nested_records(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": ' + "[" * DEEP + '"deep"' + "]" * DEEP + "}\n")
    assert list(evaluation_items("x", path, (), Tolerance())) == ["deep"]
    path.write_text("[" * 10**6)
    with pytest.raises(UserError, match="not valid JSON"):
        list(evaluation_items("x", path, (), Tolerance()))


@pytest.mark.parametrize("splits", ["5", "null", '{"a": 1}', "[" * 10**6])
def test_damaged_lists_of_splits(tmp_path: Path, splits: str) -> None:
    (tmp_path / "dataset_dict.json").write_text('{"splits": ' + splits + "}")
    with pytest.raises(UserError, match=r"dataset_dict\.json"):
        read(tmp_path, "huggingface")
