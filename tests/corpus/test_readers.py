"""Each reader: what it reads, in which order, and how it refuses what is bad."""

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import zstandard
from hypothesis import given, strategies
from pyarrow import parquet

from feldspar.core.errors import FeldsparError, SetupError, UserError
from feldspar.core.files import sha256_of_file
from feldspar.corpus.document import Document, Tolerance, check_source_name
from feldspar.corpus.readers.installed import licence_of
from feldspar.corpus.readers.listing import matches
from feldspar.corpus.readers.members import read_members
from feldspar.corpus.readers.sources import read_source
from feldspar.corpus.readers.text import parts_of
from feldspar.recipe.sections.corpus import SourceSettings

LINE = '{"id": "a", "text": "one"}\n{"text": "two"}\n'


def read(
    path: Path | None, reader: Any, skip_bad: int = 0, offline: bool = True, **more: Any
) -> list[Document]:
    reader = {"type": reader} if isinstance(reader, str) else reader
    settings = SourceSettings.model_validate({"reader": reader, "path": path, **more}, strict=False)
    return list(read_source("s", settings, Tolerance(skip_bad), offline))


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst"])
def test_jsonl(tmp_path: Path, ending: str) -> None:
    data = LINE.encode()
    if ending.endswith("gz"):
        data = gzip.compress(data)
    if ending.endswith("zst"):
        half = len(LINE) // 2
        compressor = zstandard.ZstdCompressor()
        data = compressor.compress(data[:half]) + compressor.compress(data[half:])
    (tmp_path / f"x.{ending}").write_bytes(data)
    name = f"x.{ending}"
    expected = [
        Document("a", "s", "one", "a", f"{name}:1"),
        Document(f"s/{name}:2", "s", "two", f"s/{name}:2", f"{name}:2"),
    ]
    assert read(tmp_path, "jsonl") == expected
    assert read(tmp_path / name, "jsonl") == expected


def test_fields_have_other_names(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"key": 7, "body": "one", "path": "p"}\n')
    found = read(tmp_path, "jsonl", text_field="body", id_field="key", group_field="path")
    assert found == [Document("7", "s", "one", "p", "x.jsonl:1")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.jsonl is empty"),
        (b'{"text": "a"}\n{"text": \n', "x.jsonl:2 is not valid JSON"),
        (b'{"text": "a"}\n{"body": "b"}\n', "x.jsonl:2: the record has no field 'text'"),
        (b'{"text": "a"}\n{"text": 3}\n', "x.jsonl:2: field 'text' is not text"),
        (b'{"text": "a"}\n[1]\n', "x.jsonl:2 is not a JSON object"),
        (b'{"text": "a"}\n{"text": "b", "id": "\\ud800"}\n', "x.jsonl:2: field 'id' is not UTF-8"),
        (b'{"text": "a"}\n{"text": "b", "id": [1]}\n', "x.jsonl:2: field 'id' is neither"),
        (b'{"text": "a"}\n' + b"[" * 100_000, "x.jsonl:2 is not valid JSON"),
    ],
)
def test_bad_jsonl(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(tmp_path, "jsonl")
    assert message in caught.value.what
    assert "\n" not in caught.value.what
    if content:
        assert [document.text for document in read(tmp_path, "jsonl", skip_bad=1)] == ["a"]


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_truncated_compression(tmp_path: Path, ending: str) -> None:
    lines = "".join(f'{{"text": "{os.urandom(40).hex()}"}}\n' for _ in range(500)).encode()
    whole = gzip.compress(lines) if ending == "gz" else zstandard.compress(lines)
    (tmp_path / f"x.jsonl.{ending}").write_bytes(whole[:-20])
    with pytest.raises(UserError, match="truncated or damaged"):
        read(tmp_path, "jsonl")


@pytest.mark.parametrize("reader", ["jsonl", "parquet", "text", "code"])
def test_missing_and_empty_paths(tmp_path: Path, reader: str) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "absent", reader)
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(UserError, match="holds no file that ends in"):
        read(tmp_path, reader)


def test_parquet(tmp_path: Path) -> None:
    parquet.write_table(
        pyarrow.table({"text": ["one", "two"], "id": [4, None]}), tmp_path / "x.parquet"
    )
    assert read(tmp_path, "parquet") == [
        Document("4", "s", "one", "4", "x.parquet:1"),
        Document("s/x.parquet:2", "s", "two", "s/x.parquet:2", "x.parquet:2"),
    ]


def test_bad_parquet(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.table({"text": ["one", None]}), path)
    with pytest.raises(UserError, match=r"x.parquet:2: field 'text' is not text"):
        read(tmp_path, "parquet")
    with pytest.raises(UserError, match="no column 'body'"):
        read(tmp_path, "parquet", text_field="body")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="not a whole Parquet file"):
        read(tmp_path, "parquet")
    path.write_bytes(b"")
    with pytest.raises(UserError, match="is empty"):
        read(tmp_path, "parquet")


def test_a_tree_is_sorted_and_each_inode_is_visited_once(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.py").write_text("\ufeffone")
    (tmp_path / "a.py").write_text("two")
    (tmp_path / "note.txt").write_text("no code")
    (tmp_path / "c.py").symlink_to(tmp_path / "b" / "x.py")
    (tmp_path / "d.py").hardlink_to(tmp_path / "a.py")
    (tmp_path / "z").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    (tmp_path / "broken.py").symlink_to(tmp_path / "absent")
    expected = [
        Document("s/a.py", "s", "two", "a.py", "a.py"),
        Document("s/b/x.py", "s", "one", "b/x.py", "b/x.py"),
    ]
    assert read(tmp_path, "code") == expected
    assert read(tmp_path, {"type": "code", "exclude": ("a.py",)}) == expected[1:]


def test_long_text_files_are_cut_between_paragraphs(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\nthree")
    (tmp_path / "b.txt").write_text("short")
    found = read(tmp_path, {"type": "text", "document_characters": 11})
    assert found == [
        Document("s/a.txt#1", "s", "one\n\ntwo\n\n", "a.txt#1", "a.txt#1"),
        Document("s/a.txt#2", "s", "three", "a.txt#2", "a.txt#2"),
        Document("s/b.txt", "s", "short", "b.txt", "b.txt"),
    ]


@given(text=strategies.text("ab \n", max_size=60), most=strategies.integers(1, 12))
def test_parts_are_short_and_together_the_text(text: str, most: int) -> None:
    parts = parts_of(text, most)
    assert "".join(parts) == text and all(len(part) <= most for part in parts)
    assert all(parts[:-1])


def test_globs() -> None:
    assert matches("docs/a/b.txt", ["docs/**/*.txt"])
    assert matches("docs/b.txt", ["docs/**/*.txt"])
    assert not matches("docs/a/b.txt", ["docs/*.txt"])
    assert matches("x/metadata.txt", ["metadata.txt"])
    assert matches("x/metadata.txt", ["**/metadata.txt"])
    assert not matches("x/some-metadata.txt", ["metadata.txt"])


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a\n", "a b"])
def test_source_names_are_no_paths(name: str) -> None:
    with pytest.raises(UserError, match="cannot name a source"):
        check_source_name(name)


def test_the_standard_library() -> None:
    found = read(None, "installed")
    assert any(document.id == "s/json/decoder.py" for document in found)
    assert {document.licence for document in found} == {"PSF-2.0"}
    assert not any("site-packages/" in document.id or "/test" in document.id for document in found)
    assert [document.group for document in found] == sorted(document.group for document in found)


def test_installed_packages() -> None:
    reader = {"type": "installed", "what": "packages"}
    tolerance = Tolerance(1000)
    settings = SourceSettings.model_validate({"reader": reader})
    found = read_source("s", settings, tolerance)
    document = next(found)
    assert document.licence
    assert document.origin.endswith(document.group)


CLASSIFIER = "Classifier: License :: OSI Approved :: BSD License"


@pytest.mark.parametrize(
    ("lines", "licence"),
    [
        (["License-Expression: MIT OR 0BSD", "License: MIT", CLASSIFIER], "MIT OR 0BSD"),
        (["License: LGPL-2.1-or-later", CLASSIFIER], "LGPL-2.1-or-later"),
        (
            ["License: Copyright (c) 2015", "        All rights reserved.", CLASSIFIER],
            "BSD License",
        ),
        ([f"License: {'redistribution ' * 9}", CLASSIFIER], "BSD License"),
        (["License: UNKNOWN", CLASSIFIER], "BSD License"),
        (["License: The MIT License", "        Permission is hereby granted"], "The MIT License"),
        ([], "unknown"),
    ],
)
def test_licence_of_a_package(tmp_path: Path, lines: list[str], licence: str) -> None:
    (tmp_path / "METADATA").write_text("\n".join(["Metadata-Version: 2.4", "Name: a", *lines, ""]))
    assert licence_of(PathDistribution(tmp_path).metadata) == licence


def tar_archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, bytes]], str]:
    """Puts an archive into the cache, and returns its digest."""
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path / "cache"))

    def put(members: dict[str, bytes]) -> str:
        path = tar_archive(tmp_path / "thing-1.0.tar.gz", members)
        digest = sha256_of_file(path)
        folder = tmp_path / "cache" / "archives" / digest
        folder.mkdir(parents=True)
        path.rename(folder / path.name)
        return digest

    return put


def package(digest: str, **more: Any) -> dict[str, Any]:
    archive = {"requirement": "thing==1.0", "sha256": digest}
    return {"type": "package", "archives": (archive,), "include": ("texts/*.txt",), **more}


def test_package(cached: Callable[[dict[str, bytes]], str]) -> None:
    names = ["hamlet_gut", "hamlet_gut_f", "twelfe-night_gut_f", "metadata"]
    digest = cached({f"thing-1.0/texts/{name}.txt": name.encode() for name in reversed(names)})
    reader = package(
        digest,
        exclude=("metadata.txt",),
        group_suffixes=("_gut", "_gut_f"),
        group_aliases={"twelfe-night": "twelfth_night"},
    )
    found = read(None, reader, licence="MIT")
    assert [document.group for document in found] == [
        "texts/hamlet.txt",
        "texts/hamlet.txt",
        "texts/twelfth_night.txt",
    ]
    assert found[0].id == "s/thing-1.0/texts/hamlet_gut.txt"
    assert found[0].origin == "thing-1.0.tar.gz:thing-1.0/texts/hamlet_gut.txt"
    assert found[0].licence == "MIT"
    with pytest.raises(UserError, match="no member that source s wants"):
        read(None, package(digest, include=("absent/*",)))


def test_package_offline_damaged_and_without_network(
    cached: Callable[[dict[str, bytes]], str], tmp_path: Path
) -> None:
    digest = cached({"thing-1.0/texts/a.txt": b"a"})
    with pytest.raises(UserError, match=r"downloads are off: thing==1\.0"):
        read(None, package("0" * 64))
    with pytest.raises(SetupError, match="no-index"):
        read(None, package("0" * 64), offline=False)
    archive = next((tmp_path / "cache" / "archives" / digest).iterdir())
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"thing-1.0.tar.gz .*expected sha256 .*, found "):
        read(None, package(digest))


def test_members_stay_inside_their_archive(tmp_path: Path) -> None:
    path = tar_archive(tmp_path / "bad.tar.gz", {"../evil.txt": b"x"})
    with pytest.raises(UserError, match="outside of itself"):
        list(read_members(path, lambda name: True))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("top/b.txt", "two")
        archive.writestr("top/a.txt", "one")
    found = list(read_members(tmp_path / "x.zip", lambda name: name.endswith(".txt")))
    assert found == [("top/a.txt", b"one"), ("top/b.txt", b"two")]


def test_truncated_archive(tmp_path: Path) -> None:
    path = tar_archive(tmp_path / "x.tar.gz", {"a.txt": os.urandom(50_000)})
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(FeldsparError, match="truncated or damaged"):
        list(read_members(path, lambda name: True))
