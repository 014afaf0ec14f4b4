"""Files and folders that appear whole or not at all."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from feldspar.core.errors import SetupError, UserError
from feldspar.core.files import (
    TEMPORARY_MARK,
    copy_folder,
    digest_of,
    empty_folder,
    new_folder,
    remove_folder,
    remove_incomplete,
    sha256_of_file,
    write_atomically,
)


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_atomically(path, "é")
    assert path.read_bytes() == "é".encode()
    write_atomically(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_a_folder_appears_at_the_end_only(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with new_folder(path) as temporary:
        (temporary / "a").write_text("1")
        assert not path.exists() and temporary.parent == tmp_path
    assert (path / "a").read_text() == "1"
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_a_failed_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), new_folder(tmp_path / "folder") as temporary:
        (temporary / "a").write_text("1")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_kept_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with new_folder(path) as temporary:
        (temporary / "old").write_text("1")
    with pytest.raises(UserError, match="exists already"), new_folder(path):
        pass
    with pytest.raises(RuntimeError), new_folder(path, overwrite=True):
        raise RuntimeError
    assert (path / "old").exists()
    with new_folder(path, overwrite=True) as temporary:
        (temporary / "new").write_text("2")
    assert [entry.name for entry in path.iterdir()] == ["new"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


KILLED = """
import os, signal, sys
from pathlib import Path
from feldspar.core.files import new_folder
with new_folder(Path(sys.argv[1])) as temporary:
    (temporary / "half").write_bytes(b"x" * 100_000)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_half_way_leaves_no_folder_and_its_rest_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    result = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert result.returncode == -signal.SIGKILL
    assert not path.exists()
    (tmp_path / "kept").mkdir()
    (tmp_path / f"file{TEMPORARY_MARK}0").write_text("x")
    remove_incomplete(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept"]
    remove_incomplete(tmp_path / "absent")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        mounted = (
            os.geteuid() == 0
            and not subprocess.run(mount, check=False, capture_output=True).returncode
        )
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("cannot mount a small disk here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_the_old_file(tiny_disk: Path) -> None:
    path = tiny_disk / "file"
    write_atomically(path, b"old")
    with pytest.raises(SetupError, match="no space left") as caught:
        write_atomically(path, b"x" * 10**6)
    assert caught.value.exit_code == 3
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tiny_disk.iterdir()] == ["file"]


def test_a_full_disk_leaves_no_half_folder(tiny_disk: Path) -> None:
    path = tiny_disk / "folder"
    with pytest.raises(SetupError, match="no space left"), new_folder(path) as temporary:
        (temporary / "a").write_bytes(b"x" * 10**6)
    assert list(tiny_disk.iterdir()) == []


def test_a_link_stays_and_what_it_stands_for_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "old").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with new_folder(tmp_path / "link", overwrite=True) as folder:
        (folder / "new").write_text("")
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["new"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "link"]


def test_a_copy_can_be_written_and_folders_without_permission_be_removed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    (source / "inner" / "a").write_text("text")
    (source / "inner" / "a").chmod(0o444)
    (source / "inner").chmod(0o555)
    for _ in range(2):
        copy_folder(source, tmp_path / "copy")
        assert (tmp_path / "copy" / "inner" / "a").read_text() == "text"
        for path in ("inner", "inner/a"):
            assert (tmp_path / "copy" / path).stat().st_mode & 0o200
    remove_folder(source)
    assert not source.exists()


def test_a_folder_is_emptied_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk" / "inner").mkdir(parents=True)
    (tmp_path / "disk" / "a").write_text("")
    (tmp_path / "kept").mkdir()
    (tmp_path / "disk" / "away").symlink_to(tmp_path / "kept")
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    empty_folder(tmp_path / "link")
    assert list((tmp_path / "disk").iterdir()) == []
    assert (tmp_path / "link").is_symlink() and (tmp_path / "kept").is_dir()
    empty_folder(tmp_path / "nothing")


def test_digests(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    published = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2
    assert sha256_of_file(path) == published
    assert digest_of("a", "bc") != digest_of("ab", "c") != digest_of("abc")
    assert digest_of("\ud800")  # a lone surrogate is data too
