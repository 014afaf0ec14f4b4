"""Manifests find every change of the files that they list."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feldspar.core.errors import RunError, UserError
from feldspar.core.manifest import (
    MANIFEST_NAME,
    FileRecord,
    Manifest,
    is_manifest,
    read_manifest,
    records_of,
    verify_files,
    write_manifest,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inner").mkdir()
    (tmp_path / "a").write_bytes(bytes(range(256)))
    (tmp_path / "inner" / "b").write_bytes(b"text")
    manifest = Manifest("shards", "digest", "1", counts={"tokens": 3}, files=records_of(tmp_path))
    write_manifest(tmp_path, manifest)
    return tmp_path


def test_round_trip(folder: Path) -> None:
    manifest = read_manifest(folder, "shards")
    assert set(manifest.files) == {"a", "inner/b"}
    assert manifest.counts == {"tokens": 3}
    assert verify_files(folder, manifest) == []


@pytest.mark.parametrize("place", [0, 100, 255])
def test_a_flipped_byte_is_found(folder: Path, place: int) -> None:
    data = bytearray((folder / "a").read_bytes())
    data[place] ^= 1
    (folder / "a").write_bytes(data)
    manifest = read_manifest(folder, "shards")
    assert verify_files(folder, manifest) == ["a: content differs from its checksum"]
    assert verify_files(folder, manifest, contents=False) == []


def test_truncation_and_absence_are_found(folder: Path) -> None:
    (folder / "a").write_bytes(b"x")
    (folder / "inner" / "b").unlink()
    problems = verify_files(folder, read_manifest(folder, "shards"), contents=False)
    assert problems == ["a: 1 bytes, expected 256", "inner/b: missing"]


def test_a_file_that_is_not_listed_is_found_hidden_ones_are_not(folder: Path) -> None:
    (folder / "inner" / "c").write_bytes(b"")
    (folder / "inner" / MANIFEST_NAME).write_bytes(b"")
    (folder / ".listing").write_bytes(b"")
    assert verify_files(folder, read_manifest(folder)) == [
        "inner/c: not listed in manifest.json",
        "inner/manifest.json: not listed in manifest.json",
    ]


def test_every_byte_of_a_manifest_that_means_something_is_covered(folder: Path) -> None:
    """A change of a byte is an error, or leaves every value as it was (white space)."""
    path = folder / MANIFEST_NAME
    text, whole = path.read_bytes(), read_manifest(folder)
    for place in range(len(text)):
        data = bytearray(text)
        data[place] ^= 1
        path.write_bytes(data)
        try:
            assert read_manifest(folder) == whole and chr(text[place]).isspace()
        except (UserError, RunError) as error:
            assert str(folder) in error.what


def test_a_manifest_may_not_name_files_outside_its_folder(folder: Path) -> None:
    record = FileRecord(0, "")
    for name in ("../a", "/a", "inner/../../a"):
        write_manifest(folder, Manifest("shards", "", "1", files={name: record}))
        with pytest.raises(RunError, match="outside its folder"):
            read_manifest(folder)


def test_manifests_of_other_tools_are_told_from_damaged_ones(tmp_path: Path) -> None:
    path = tmp_path / MANIFEST_NAME
    assert not is_manifest(path)
    path.write_text('{"name": "app", "version": "1", "icons": []}')
    assert not is_manifest(path)
    path.write_text('{"kind": "rele')
    assert is_manifest(path)


def test_another_kind_and_no_manifest_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="holds shards, not documents"):
        read_manifest(folder, "documents")
    with pytest.raises(UserError, match="not a finished shards folder"):
        read_manifest(folder / "inner", "shards")


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "\x00", "[" * 100_000])
def test_a_damaged_manifest_is_a_run_error(folder: Path, text: str) -> None:
    (folder / MANIFEST_NAME).write_text(text)
    with pytest.raises(RunError, match="damaged"):
        read_manifest(folder, "shards")


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["files"]["a"].update(sha256="0" * 64),
        lambda data: data["counts"].update(tokens=4),
        lambda data: data["parents"].update(documents="0" * 64),
        lambda data: data["warnings"].append("w"),
        lambda data: data.update(command="rm"),
        lambda data: data.update(version="2"),
        lambda data: data.update(digest="0" * 64),
        lambda data: data.pop("checksum"),
    ],
)
def test_an_altered_value_is_found(
    folder: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    path = folder / MANIFEST_NAME
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(RunError, match="altered"):
        read_manifest(folder, "shards")


@pytest.mark.parametrize("version", [1, 99])
def test_another_format_is_refused(folder: Path, version: int) -> None:
    path = folder / MANIFEST_NAME
    data = json.loads(path.read_text()) | {"format_version": version}
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match="another version") as caught:
        read_manifest(folder, "shards")
    assert "make the folder again" in str(caught.value)


def test_the_digest_is_of_the_content_alone(folder: Path) -> None:
    one = Manifest("shards", "c", "1", command="x", files=records_of(folder))
    other = Manifest("shards", "c", "2", command="y", files=records_of(folder))
    assert one.digest == other.digest
    assert one.digest != Manifest("shards", "d", "1", files=records_of(folder)).digest
    assert one.digest != Manifest("shards", "c", "1").digest
