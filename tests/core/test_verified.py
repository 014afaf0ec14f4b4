"""Folders are compared with their checksums at first use; what is remembered cannot be forged."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from feldspar.core import verified, verified_memory
from feldspar.core.errors import RunError, UserError
from feldspar.core.manifest import MANIFEST_NAME, FileRecord, Manifest, records_of, write_manifest
from feldspar.core.verified import open_folder, open_if_finished, require_replaceable


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty memory, which keeps files however young they are."""
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(verified_memory, "SETTLED_NANOSECONDS", -1)
    return tmp_path / "cache" / "verified"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files in a folder and one beside it."""
    place = tmp_path / "data"
    (place / "train").mkdir(parents=True)
    (place / "a").write_bytes(bytes(range(256)))
    (place / "train" / "b").write_bytes(b"text")
    (place / "train" / "c.x").write_bytes(b"more")
    write_manifest(place, Manifest("shards", "", "1", files=records_of(place)))
    return place


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the files whose content was read to compare it."""
    found: list[str] = []
    compare = verified.content_problem

    def counted(path: Path, record: FileRecord) -> str | None:
        found.append(path.name)
        return compare(path, record)

    monkeypatch.setattr(verified, "content_problem", counted)
    yield found


def flip(path: Path, keep_times: bool = False) -> None:
    """Change a byte; with ``keep_times`` as one who hides it."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    if keep_times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_files_are_listed_by_folder_and_ending(folder: Path) -> None:
    opened = open_folder(folder, "shards")
    assert opened.names() == ["a", "train/b", "train/c.x"]
    assert opened.names("train") == ["train/b", "train/c.x"]
    assert opened.names("tra") == []
    assert opened.names("train", ".x") == ["train/c.x"]


def test_each_file_is_read_once_and_remembered_for_the_next_reader(
    folder: Path, read: list[str]
) -> None:
    opened = open_folder(folder, "shards")
    assert read == [], "opening reads no content"
    assert opened.file("a") == folder / "a" == opened.file("a")
    assert read == ["a"]
    opened.verify()
    assert sorted(read) == ["a", "b", "c.x"]
    open_folder(folder, "shards").verify()
    assert sorted(read) == ["a", "b", "c.x"]


@pytest.mark.parametrize("keep_times", [False, True])
def test_what_changed_since_is_read_again(folder: Path, read: list[str], keep_times: bool) -> None:
    open_folder(folder, "shards").verify()
    flip(folder / "a", keep_times)
    with pytest.raises(RunError, match=r"data/a is damaged: content differs") as caught:
        open_folder(folder, "shards").file("a")
    assert "feldspar tokens build RECIPE --overwrite" in str(caught.value)
    assert open_folder(folder, "shards").problems() == ["a: content differs from its checksum"]
    assert read.count("b") == 1, "what did not change is remembered"


def test_a_copy_brings_no_trust_along(folder: Path, read: list[str], tmp_path: Path) -> None:
    open_folder(folder, "shards").verify()
    copy = shutil.copytree(folder, tmp_path / "copy")
    read.clear()
    open_folder(copy, "shards").verify()
    assert sorted(read) == ["a", "b", "c.x"]
    shutil.rmtree(folder)
    flip(copy / "a")
    copy.rename(folder)
    with pytest.raises(RunError, match="content differs"):
        open_folder(folder, "shards").verify()


def test_young_files_are_not_remembered(
    folder: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verified_memory, "SETTLED_NANOSECONDS", 10**18)
    for _ in range(2):
        open_folder(folder, "shards").file("a")
    assert read == ["a", "a"]


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff", b'{"a": 5}', b'{"a": ["0", 1]}'])
def test_a_damaged_memory_costs_time_only(
    folder: Path, read: list[str], cache: Path, content: bytes
) -> None:
    open_folder(folder, "shards").verify()
    (memory,) = cache.iterdir()
    memory.write_bytes(content)
    open_folder(folder, "shards").verify()
    assert len(read) == 6


def test_a_cache_that_cannot_be_written_costs_time_only(
    folder: Path, read: list[str], cache: Path
) -> None:
    cache.parent.mkdir()
    cache.write_text("a file, no folder")
    for _ in range(2):
        open_folder(folder, "shards").file("a")
    assert read == ["a", "a"]


def test_old_memories_are_dropped(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verified_memory, "MOST_FOLDERS", 1)
    open_folder(folder, "shards").verify()
    (first,) = cache.iterdir()
    os.utime(first, ns=(0, 0))
    other = shutil.copytree(folder, folder.with_name("other"))
    open_folder(other, "shards").verify()
    assert first not in cache.iterdir() and len(list(cache.iterdir())) == 1


def test_missing_cut_and_unlisted_files_are_found_when_the_folder_is_opened(folder: Path) -> None:
    (folder / "train" / "d").write_bytes(b"")
    with pytest.raises(UserError, match=r"train/d is not listed in manifest\.json") as caught:
        open_folder(folder, "shards")
    assert "move it out" in str(caught.value)
    (folder / "train" / "d").rename(folder / "train" / ".d")
    open_folder(folder, "shards").verify()
    (folder / "a").write_bytes(b"")
    with pytest.raises(RunError, match="a is damaged: 0 bytes, expected 256"):
        open_folder(folder, "shards")
    shutil.rmtree(folder / "train")
    (folder / "a").write_bytes(bytes(range(256)))
    with pytest.raises(RunError, match="train/b is damaged: missing"):
        open_folder(folder, "shards")


def test_a_file_outside_the_list_is_never_given_out(folder: Path) -> None:
    opened = open_folder(folder, "shards")
    (folder / "z").write_bytes(b"")
    with pytest.raises(RunError, match="z is damaged: not listed"):
        opened.file("z")


def test_in_the_background_every_file_is_compared_once(folder: Path, read: list[str]) -> None:
    opened = open_folder(folder, "shards")
    flip(folder / "train" / "b")
    opened.verify_in_background(opened.names())
    assert opened.file("a") == folder / "a"
    with pytest.raises(RunError, match="b is damaged"):
        opened.file("train/b")
    assert opened.problems() == ["train/b: content differs from its checksum"]
    assert sorted(read) == ["a", "b", "c.x"]


def test_progress_is_shown_for_much_data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verified, "SHOWN_BYTES", 1)
    open_folder(folder, "shards").verify()


def test_plain_folders_are_no_finished_ones(folder: Path) -> None:
    assert open_if_finished(folder / "train") is None
    finished = open_if_finished(folder)
    assert finished is not None and finished.manifest.kind == "shards"
    (folder / MANIFEST_NAME).write_text("{")
    with pytest.raises(RunError, match="damaged"):
        open_if_finished(folder)


def test_a_damaged_folder_may_be_replaced_another_kind_may_not(folder: Path) -> None:
    require_replaceable(folder, "shards")
    with pytest.raises(UserError, match="holds shards, not documents"):
        require_replaceable(folder, "documents")
    (folder / MANIFEST_NAME).write_text("{")
    require_replaceable(folder, "documents")
