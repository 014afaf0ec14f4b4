"""Folders are compared with their checksums at first use; what is remembered cannot be forged."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from feldspar.core import artifact, artifact_memory
from feldspar.core.artifact import (
    OtherArtifactError,
    Wanted,
    find_artifact,
    finish_artifact,
    open_artifact,
    open_if_artifact,
    require_replaceable,
    require_writable,
)
from feldspar.core.errors import RunError, UserError
from feldspar.core.manifest import MANIFEST_NAME, FileRecord, Manifest, records_of, write_manifest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty memory, which keeps files however young they are."""
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(artifact_memory, "SETTLED_NANOSECONDS", -1)
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
    compare = artifact.content_problem

    def counted(path: Path, record: FileRecord) -> str | None:
        found.append(path.name)
        return compare(path, record)

    monkeypatch.setattr(artifact, "content_problem", counted)
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
    opened = open_artifact(folder, "shards")
    assert opened.names() == ["a", "train/b", "train/c.x"]
    assert opened.names("train") == ["train/b", "train/c.x"]
    assert opened.names("tra") == []
    assert opened.names("train", ".x") == ["train/c.x"]


def test_each_file_is_read_once_and_remembered_for_the_next_reader(
    folder: Path, read: list[str]
) -> None:
    opened = open_artifact(folder, "shards")
    assert read == [], "opening reads no content"
    assert opened.file("a") == folder / "a" == opened.file("a")
    assert read == ["a"]
    opened.verify()
    assert sorted(read) == ["a", "b", "c.x"]
    open_artifact(folder, "shards").verify()
    assert sorted(read) == ["a", "b", "c.x"]


@pytest.mark.parametrize("keep_times", [False, True])
def test_what_changed_since_is_read_again(folder: Path, read: list[str], keep_times: bool) -> None:
    open_artifact(folder, "shards").verify()
    flip(folder / "a", keep_times)
    with pytest.raises(RunError, match=r"data/a is damaged: content differs") as caught:
        open_artifact(folder, "shards").file("a")
    assert "feldspar tokens build RECIPE --overwrite" in str(caught.value)
    assert open_artifact(folder, "shards").problems() == ["a: content differs from its checksum"]
    assert read.count("b") == 1, "what did not change is remembered"


def test_a_copy_brings_no_trust_along(folder: Path, read: list[str], tmp_path: Path) -> None:
    open_artifact(folder, "shards").verify()
    copy = shutil.copytree(folder, tmp_path / "copy")
    read.clear()
    open_artifact(copy, "shards").verify()
    assert sorted(read) == ["a", "b", "c.x"]
    shutil.rmtree(folder)
    flip(copy / "a")
    copy.rename(folder)
    with pytest.raises(RunError, match="content differs"):
        open_artifact(folder, "shards").verify()


def test_young_files_are_not_remembered(
    folder: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact_memory, "SETTLED_NANOSECONDS", 10**18)
    for _ in range(2):
        open_artifact(folder, "shards").file("a")
    assert read == ["a", "a"]


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff", b'{"a": 5}', b'{"a": ["0", 1]}'])
def test_a_damaged_memory_costs_time_only(
    folder: Path, read: list[str], cache: Path, content: bytes
) -> None:
    open_artifact(folder, "shards").verify()
    (memory,) = cache.iterdir()
    memory.write_bytes(content)
    open_artifact(folder, "shards").verify()
    assert len(read) == 6


def test_a_cache_that_cannot_be_written_costs_time_only(
    folder: Path, read: list[str], cache: Path
) -> None:
    cache.parent.mkdir()
    cache.write_text("a file, no folder")
    for _ in range(2):
        open_artifact(folder, "shards").file("a")
    assert read == ["a", "a"]


def test_old_memories_are_dropped(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact_memory, "MOST_FOLDERS", 1)
    open_artifact(folder, "shards").verify()
    (first,) = cache.iterdir()
    os.utime(first, ns=(0, 0))
    other = shutil.copytree(folder, folder.with_name("other"))
    open_artifact(other, "shards").verify()
    assert first not in cache.iterdir() and len(list(cache.iterdir())) == 1


def test_missing_cut_and_unlisted_files_are_found_when_the_folder_is_opened(folder: Path) -> None:
    (folder / "train" / "d").write_bytes(b"")
    with pytest.raises(UserError, match=r"train/d is not listed in manifest\.json") as caught:
        open_artifact(folder, "shards")
    assert "move it out" in str(caught.value)
    (folder / "train" / "d").rename(folder / "train" / ".d")
    open_artifact(folder, "shards").verify()
    (folder / "a").write_bytes(b"")
    with pytest.raises(RunError, match="a is damaged: 0 bytes, expected 256"):
        open_artifact(folder, "shards")
    shutil.rmtree(folder / "train")
    (folder / "a").write_bytes(bytes(range(256)))
    with pytest.raises(RunError, match="train/b is damaged: missing"):
        open_artifact(folder, "shards")


def test_a_file_outside_the_list_is_never_given_out(folder: Path) -> None:
    opened = open_artifact(folder, "shards")
    (folder / "z").write_bytes(b"")
    with pytest.raises(RunError, match="z is damaged: not listed"):
        opened.file("z")


def test_in_the_background_every_file_is_compared_once(folder: Path, read: list[str]) -> None:
    opened = open_artifact(folder, "shards")
    flip(folder / "train" / "b")
    opened.verify_in_background(opened.names())
    assert opened.file("a") == folder / "a"
    with pytest.raises(RunError, match="b is damaged"):
        opened.file("train/b")
    assert opened.problems() == ["train/b: content differs from its checksum"]
    assert sorted(read) == ["a", "b", "c.x"]


def test_progress_is_shown_for_much_data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "SHOWN_BYTES", 1)
    open_artifact(folder, "shards").verify()


def test_plain_folders_are_no_finished_ones(folder: Path) -> None:
    assert open_if_artifact(folder / "train") is None
    finished = open_if_artifact(folder)
    assert finished is not None and finished.manifest.kind == "shards"
    (folder / MANIFEST_NAME).write_text("{")
    with pytest.raises(RunError, match="damaged"):
        open_if_artifact(folder)


def test_a_damaged_folder_may_be_replaced_another_kind_may_not(folder: Path) -> None:
    require_replaceable(folder, "shards")
    with pytest.raises(UserError, match="holds shards, not documents"):
        require_replaceable(folder, "documents")
    (folder / MANIFEST_NAME).write_text("{")
    require_replaceable(folder, "documents")


def made(folder: Path, wanted: Wanted) -> Path:
    """An artifact with one file."""
    folder.mkdir()
    (folder / "a").write_bytes(b"text")
    finish_artifact(folder, wanted, command="make", counts={"files": 1})
    return folder


def test_the_wanted_artifact_is_found_however_its_settings_are_told(tmp_path: Path) -> None:
    wanted = Wanted("shards", "digest", {"seed": 1}, {"documents": "d"})
    folder = made(tmp_path / "shards", wanted)
    same = (
        wanted,
        Wanted("shards"),
        Wanted("shards", "digest"),
        Wanted("shards", "another way to digest", {"seed": 1}),
        Wanted("shards", "digest", {"seed": 1}, {"documents": "d"}, "shards.path"),
    )
    for each in same:
        found = find_artifact(folder, each)
        assert found is not None and found.manifest.counts == {"files": 1}
    assert open_artifact(folder).manifest.parents == {"documents": "d"}


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted("shards", "other", {"seed": 2}), "was built with other settings"),
        (Wanted("shards", "other"), "was built with other settings"),
        (Wanted("shards", "digest", parents={"documents": "e"}), "was built from other documents"),
        (Wanted("shards", "digest", parents={}), "was built from other"),
    ],
)
def test_an_artifact_that_was_built_otherwise_is_refused(
    tmp_path: Path, wanted: Wanted, words: str
) -> None:
    folder = made(tmp_path / "s", Wanted("shards", "digest", {"seed": 1}, {"documents": "d"}))
    for key, place in (("", f"{folder} "), ("shards.path", f"shards.path: {folder} ")):
        with pytest.raises(OtherArtifactError, match=words) as caught:
            find_artifact(folder, replace(wanted, key=key))
        assert caught.value.what.startswith(place)
        assert "--overwrite" in (caught.value.do or "")
        assert caught.value.found == ("seed: 1 -> 2" if wanted.settings else None)
    require_replaceable(folder, "shards")


def test_what_is_absent_or_empty_is_to_be_made(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("absent", "empty"):
        assert find_artifact(tmp_path / name, Wanted("shards", "digest")) is None
        require_replaceable(tmp_path / name, "shards")
    require_writable(tmp_path / "absent", "shards", overwrite=False)
    with pytest.raises(UserError, match="exists already"):
        require_writable(tmp_path / "empty", "shards", overwrite=False)


def test_what_feldspar_did_not_make_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    for path in (tmp_path / "home", tmp_path / "home" / "letter.txt"):
        for act in (
            lambda path: find_artifact(path, Wanted("shards")),
            lambda path: require_replaceable(path, "shards"),
            lambda path: require_writable(path, "shards", overwrite=True),
        ):
            with pytest.raises(UserError, match=r"holds no manifest\.json") as caught:
                act(path)
            assert "never replaces" in (caught.value.do or "")


def test_a_damaged_or_another_kind_of_artifact_is_not_found(tmp_path: Path) -> None:
    folder = made(tmp_path / "s", Wanted("shards", "digest"))
    with pytest.raises(UserError, match="holds shards, not documents"):
        find_artifact(folder, Wanted("documents", "digest"))
    (folder / "a").write_bytes(b"tex")
    with pytest.raises(RunError, match="damaged"):
        find_artifact(folder, Wanted("shards", "digest"))
    require_replaceable(folder, "shards")
