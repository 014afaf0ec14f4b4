"""Write files and folders so that they appear whole or not at all; compute their digests."""

import hashlib
import os
import shutil
import uuid
from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path

from feldspar.core.errors import UserError
from feldspar.core.system_errors import write_error

TEMPORARY_MARK = ".incomplete-"


def cache_folder() -> Path:
    """Return the user's cache: FELDSPAR_CACHE, else XDG_CACHE_HOME/feldspar, else ~/.cache."""
    if chosen := os.environ.get("FELDSPAR_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).expanduser() / "feldspar"


def sha256_of_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(*parts: str) -> str:
    """Return a stable hexadecimal digest of a list of texts. Lengths keep the parts apart."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name, flush it to disk and rename it into place.

    Raises SetupError when the disk is full; the previous file is then untouched.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with new_file(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def new_file(path: Path, suffix: str = "") -> Generator[Path]:
    """Yield a temporary sibling of ``path`` to write; rename it to ``path`` if no error is raised.

    Its name ends with ``suffix``. It is flushed to disk first; until then a previous file is
    untouched. Raises SetupError when the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}{TEMPORARY_MARK}{uuid.uuid4().hex[:8]}{suffix}")
    try:
        with disk_errors(path):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def new_folder(path: Path, overwrite: bool = False, flush: bool = True) -> Generator[Path]:
    """Yield a temporary sibling of ``path`` to fill; rename it to ``path`` if no error is raised.

    A folder that exists is therefore whole; without ``flush`` it may be torn by a power cut, which
    its manifest shows. Raises UserError when ``path`` exists and ``overwrite`` is off, SetupError
    when the disk is full.
    """
    if path.is_symlink():
        path = path.resolve()  # the folder that it stands for is replaced, the link stays
    if not overwrite:
        require_absent(path)
    temporary = path.with_name(f"{path.name}{TEMPORARY_MARK}{uuid.uuid4().hex[:8]}")
    with disk_errors(path):
        temporary.mkdir(parents=True)
    try:
        with disk_errors(path):
            yield temporary
            if flush:
                sync_tree(temporary)
        if path.exists():
            replaced = path.with_name(f"{path.name}{TEMPORARY_MARK}{uuid.uuid4().hex[:8]}")
            path.rename(replaced)
            temporary.rename(path)
            remove_folder(replaced)
        else:
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if flush:
        sync_folder(path.parent)


def require_absent(path: Path) -> None:
    """Raise UserError where ``path`` exists."""
    if path.exists():
        raise UserError(
            f"{path} exists already", do="choose another folder, or pass --overwrite to replace it"
        )


def copy_folder(source: Path, target: Path) -> None:
    """Copy the files below ``source``, but not their permissions: the copy can be written.

    What is in ``target`` is replaced.
    """
    with new_folder(target, overwrite=True) as folder:
        for path in sorted(source.rglob("*")):
            if path.is_file():
                place = folder / path.relative_to(source)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)


def remove_folder(folder: Path) -> None:
    """Delete a folder and everything below it, even folders without permission to write."""
    for directory, _, _ in os.walk(folder):
        Path(directory).chmod(0o700)
    shutil.rmtree(folder)


def empty_folder(folder: Path) -> None:
    """Delete the content of a folder, which may be a link to another folder or be absent."""
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            remove_folder(entry)
        else:
            entry.unlink()


def remove_incomplete(folder: Path, names: Collection[str] | None = None) -> None:
    """Delete what an interrupted process left behind in ``folder`` under temporary names.

    ``names`` are the files and folders that the process was to make; None means all.
    """
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        name, mark, _ = entry.name.partition(TEMPORARY_MARK)
        if mark and (names is None or name in names):
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below ``folder`` to disk."""
    for directory, _, names in os.walk(folder):
        for name in names:
            descriptor = os.open(Path(directory) / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(directory))


def sync_folder(folder: Path) -> None:
    """Flush a folder's own entries to disk, so that a rename in the folder survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def disk_errors(path: Path) -> Generator[None]:
    """Turn an error of the system or a library into one that names ``path``, which is written.

    Raises SetupError for a full disk or missing permission, UserError for an impossible path.
    """
    try:
        yield
    except Exception as error:
        told = write_error(error, path)
        if told is None:
            raise
        raise told from error
