"""Read members of a tar or zip archive without unpacking it to disk."""

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from feldspar.core.errors import UserError

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError)


def read_members(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each regular file whose name is ``wanted``, sorted by name.

    Raises UserError when the archive is damaged, or names a member outside of itself.
    """
    try:
        if zipfile.is_zipfile(path):
            members = _zip_members(path, wanted)
        else:
            members = _tar_members(path, wanted)
    except _DAMAGE as error:
        raise UserError(f"{path} is truncated or damaged: {error}") from error
    except RuntimeError as error:  # an encrypted member, or an unknown way of compression
        raise UserError(f"{path} cannot be opened: {error}") from error
    yield from sorted(members.items())


def _zip_members(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {
            _safe(entry.filename, path): archive.read(entry)
            for entry in archive.infolist()
            if not entry.is_dir() and wanted(entry.filename)
        }


def _tar_members(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    found = {}
    with tarfile.open(path, "r|*") as archive:  # a stream: no seeking in compressed bytes
        for entry in archive:
            if entry.isreg() and wanted(entry.name):
                file = archive.extractfile(entry)
                assert file is not None
                found[_safe(entry.name, path)] = file.read()
    return found


def _safe(name: str, path: Path) -> str:
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name:
        raise UserError(f"{path} names a member outside of itself", found=name)
    return name
