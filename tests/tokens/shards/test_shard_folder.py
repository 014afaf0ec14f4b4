"""Opening shards: damage is found before anything is trained on it."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from feldspar.core.errors import RunError, UserError
from feldspar.core.manifest import Manifest, records_of, write_manifest
from feldspar.tokens.shards.shard_folder import ShardSet


@pytest.fixture
def copy(shards: ShardSet, tmp_path: Path) -> Path:
    return shutil.copytree(shards.path, tmp_path / "copy")


def recorded(folder: Path, shards: ShardSet) -> ShardSet:
    """Open after a change that the manifest was made to agree with."""
    kept = shards.manifest
    manifest = Manifest(
        "shards", kept.configuration, "0", counts=kept.counts, files=records_of(folder)
    )
    write_manifest(folder, manifest)
    return ShardSet.open(folder)


def test_what_it_tells(shards: ShardSet) -> None:
    assert shards.splits == ["train", "validation"]
    assert shards.sources("train") == ["code", "prose"]
    assert shards.sources("validation") == ["prose"]
    assert shards.sources("test") == []
    assert (shards.vocab_size, shards.end_of_document_id) == (300, 0)
    assert shards.digest == shards.manifest.digest


def test_a_folder_that_does_not_exist_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist") as caught:
        ShardSet.open(tmp_path / "none")
    assert "feldspar tokens build RECIPE" in str(caught.value)


def test_an_unfinished_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a finished shards folder"):
        ShardSet.open(tmp_path)


def test_an_unknown_source_names_the_nearest(shards: ShardSet) -> None:
    with pytest.raises(UserError, match=r"no source 'pros'.*did you mean 'prose'"):
        shards.tokens("train", "pros")
    with pytest.raises(UserError, match="no source 'code' in its validation split"):
        shards.read("validation", "code")


def test_a_truncated_file(copy: Path) -> None:
    path = copy / "train/prose/00001.tokens"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(
        RunError, match=r"train/prose/00001\.tokens is damaged: \d+ bytes, expected \d+"
    ):
        ShardSet.open(copy)


def test_a_missing_file(copy: Path) -> None:
    (copy / "train/code/00000.ends.npy").unlink()
    with pytest.raises(RunError, match=r"train/code/00000\.ends\.npy is damaged: missing"):
        ShardSet.open(copy)


@pytest.mark.parametrize(
    "name", ["train/prose/00001.tokens", "train/prose/00000.ends.npy", "tokenizer/tokenizer.json"]
)
def test_one_altered_byte_is_found_before_anything_is_read(copy: Path, name: str) -> None:
    path = copy / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(RunError, match="content differs from its checksum") as caught:
        ShardSet.open(copy).read("train", "prose")
    assert name in str(caught.value)


def test_many_tokens_are_compared_in_the_background_and_before_they_are_given_out(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feldspar.tokens.shards.shard_folder.READ_AHEAD_BYTES", 0)
    path = copy / "train/prose/00001.tokens"
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    source = ShardSet.open(copy).read("train", "prose")
    place = int(np.flatnonzero(source.file_index == 0)[0])
    assert len(source.document(place)) == source.lengths[place]
    with pytest.raises(RunError, match=r"00001\.tokens is damaged: content differs"):
        source.document(int(np.flatnonzero(source.file_index == 1)[0]))


def test_a_file_that_is_not_listed_is_refused_not_read(copy: Path) -> None:
    shutil.copy(copy / "train/prose/00000.tokens", copy / "train/prose/00009.tokens")
    shutil.copy(copy / "train/prose/00000.ends.npy", copy / "train/prose/00009.ends.npy")
    with pytest.raises(UserError, match=r"00009\.ends\.npy is not listed in manifest\.json"):
        ShardSet.open(copy)


def test_tokens_beyond_the_last_document(copy: Path, shards: ShardSet) -> None:
    path = copy / "train/prose/00000.tokens"
    path.write_bytes(path.read_bytes() + b"\0\0")
    opened = recorded(copy, shards)
    with pytest.raises(RunError, match=r"00000\.tokens is damaged: \d+ tokens, but the last"):
        opened.read("train", "prose")


def test_half_a_token(copy: Path, shards: ShardSet) -> None:
    path = copy / "train/prose/00000.tokens"
    path.write_bytes(path.read_bytes() + b"\0")
    opened = recorded(copy, shards)
    with pytest.raises(RunError, match="not a whole number of uint16 tokens"):
        opened.read("train", "prose")


def test_ends_that_do_not_increase(copy: Path, shards: ShardSet) -> None:
    path = copy / "train/prose/00000.ends.npy"
    ends = np.load(path)
    ends[2] = ends[1]
    np.save(path, ends)
    opened = recorded(copy, shards)
    with pytest.raises(RunError, match=r"00000\.ends\.npy is damaged: .*do not increase"):
        opened.read("train", "prose")


def test_ends_that_are_no_array(copy: Path, shards: ShardSet) -> None:
    (copy / "train/prose/00000.ends.npy").write_bytes(b"garbage")
    opened = recorded(copy, shards)
    with pytest.raises(RunError, match=r"00000\.ends\.npy is damaged"):
        opened.read("train", "prose")
