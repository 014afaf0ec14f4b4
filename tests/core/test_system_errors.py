"""Errors of the system and of libraries are told in words that a person can act on."""

import errno
import json
import resource
import shutil
import signal
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models

from feldspar.core.errors import FeldsparError, RunError, SetupError, UserError
from feldspar.core.files import disk_errors
from feldspar.core.system_errors import translated

LIMIT_BYTES = 4096


@contextmanager
def little_space() -> Iterator[None]:
    """No file may grow beyond a few kilobytes; pytest's own output must not be written here."""
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def write_and_close(path: Path) -> None:
    """The system refuses only what ``close`` flushes."""
    with path.open("w") as file:
        file.write("x" * (LIMIT_BYTES + 1))


WRITERS: dict[str, Callable[[Path], object]] = {
    "plain file": write_and_close,
    "NumPy": lambda path: np.save(path, np.zeros(LIMIT_BYTES)),
    "safetensors": lambda path: save_file({"a": torch.zeros(LIMIT_BYTES)}, path),
    "Parquet": lambda path: parquet.write_table(
        pyarrow.table({"a": np.random.default_rng(0).normal(size=LIMIT_BYTES)}), path
    ),
    "tokenizer": lambda path: Tokenizer(
        models.WordLevel({f"word {index}": index for index in range(LIMIT_BYTES)}, "word 0")
    ).save(str(path)),
    "copied tree": lambda path: shutil.copytree(path.parent / "tree", path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_named_whatever_library_writes(tmp_path: Path, name: str) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"x" * (LIMIT_BYTES + 1))
    target = tmp_path / "target"
    with (
        pytest.raises(SetupError, match=r"no space left on the disk while writing .*target"),
        little_space(),
        disk_errors(target),
    ):
        WRITERS[name](target)


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.EACCES, SetupError, "permission denied"),
        (errno.EROFS, SetupError, "read-only"),
        (errno.EMFILE, SetupError, "too many files"),
        (errno.EIO, SetupError, "failed to read or write"),
        (errno.EDQUOT, SetupError, "no space left"),
        (errno.ENOENT, UserError, "does not exist"),
        (errno.ENOTDIR, UserError, "a file, not a folder"),
        (errno.EISDIR, UserError, "a folder, and a file is needed"),
        (errno.ENAMETOOLONG, UserError, "too long"),
        (errno.ELOOP, UserError, "form a loop"),
        (errno.ENOTTY, SetupError, "refused an operation"),
    ],
)
def test_numbers_of_the_system_name_the_file(
    number: int, kind: type[FeldsparError], words: str
) -> None:
    told = translated(OSError(number, "in the system's words", "some/file"))
    assert type(told) is kind
    assert words in told.what
    assert "some/file" in str(told)


def test_memory_runs_out_on_any_library() -> None:
    for allocate in (lambda: torch.empty(10**15), lambda: np.empty(10**16)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            allocate()
        told = translated(caught.value)
        assert isinstance(told, SetupError) and "not enough memory" in told.what
    assert isinstance(translated(torch.OutOfMemoryError("CUDA out of memory")), SetupError)


def test_a_lost_process_is_no_fault_of_ours() -> None:
    words = "[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:3777"
    told = translated(RuntimeError(words))
    assert isinstance(told, RunError) and "another process" in told.what


def test_damaged_files_of_libraries(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\xff" * 100)
    readers: list[Callable[[Path], object]] = [
        load_file,
        parquet.read_table,
        lambda path: zipfile.ZipFile(path),
    ]
    for read in readers:
        with pytest.raises((SafetensorError, pyarrow.ArrowInvalid, zipfile.BadZipFile)) as caught:
            read(path)
        told = translated(caught.value)
        assert told is not None and "damaged" in told.what


def test_names_and_depths_that_cannot_be(tmp_path: Path) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: (tmp_path / "a\0b").open(),
        lambda: (tmp_path / "a").write_text("\udcff", encoding="utf-8"),
        lambda: json.loads("[" * 100_000),
    ]
    for attempt in attempts:
        with pytest.raises((ValueError, RecursionError)) as caught:
            attempt()
        assert isinstance(translated(caught.value), UserError)


def test_a_loop_of_links_is_named(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises((RuntimeError, OSError)) as caught:
        loop.resolve(strict=True)
    told = translated(caught.value)
    assert isinstance(told, UserError)
    assert told.what == f"{loop}: its symbolic links form a loop"


def test_other_errors_stay_faults() -> None:
    assert translated(KeyError("x")) is None
    assert translated(RecursionError("maximum recursion depth exceeded")) is None
    with pytest.raises(KeyError), disk_errors(Path("x")):
        raise KeyError
