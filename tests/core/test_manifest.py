"""Manifests find every change of the files that they list."""

import json
from pathlib import Path

import pytest

from feldspar.core.errors import RunError, UserError
from feldspar.core.manifest import (
    MANIFEST_NAME,
    Manifest,
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


def test_another_kind_and_no_manifest_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="holds shards, not documents"):
        read_manifest(folder, "documents")
    with pytest.raises(UserError, match="not a finished shards folder"):
        read_manifest(folder / "inner", "shards")


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '{"kind": "shards"}', '{"files": 3}', "\x00"])
def test_a_damaged_manifest_is_a_run_error(folder: Path, text: str) -> None:
    (folder / MANIFEST_NAME).write_text(text)
    with pytest.raises(RunError, match="damaged"):
        read_manifest(folder, "shards")


def test_an_altered_checksum_is_found(folder: Path) -> None:
    path = folder / MANIFEST_NAME
    data = json.loads(path.read_text())
    data["files"]["a"]["sha256"] = "0" * 64
    path.write_text(json.dumps(data))
    with pytest.raises(RunError, match="altered"):
        read_manifest(folder, "shards")


def test_another_format_is_refused(folder: Path) -> None:
    path = folder / MANIFEST_NAME
    data = json.loads(path.read_text()) | {"format_version": 99}
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match="another version"):
        read_manifest(folder, "shards")


def test_the_digest_is_of_the_content_alone(folder: Path) -> None:
    one = Manifest("shards", "c", "1", command="x", files=records_of(folder))
    other = Manifest("shards", "c", "2", command="y", files=records_of(folder))
    assert one.digest == other.digest
    assert one.digest != Manifest("shards", "d", "1", files=records_of(folder)).digest
    assert one.digest != Manifest("shards", "c", "1").digest
