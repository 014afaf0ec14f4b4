"""List files below a path, each inode once, in sorted order; match relative paths by globs."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from feldspar.core.errors import UserError
from feldspar.corpus.encoding import repaired


def files_below(
    path: Path, suffixes: Sequence[str], skipped: Callable[[str], bool] = lambda name: False
) -> list[tuple[str, Path]]:
    """List relative name and path of each file of ``path`` (file or folder), sorted by name.

    Paths are absolute: workers on other machines have other current folders.
    Symbolic links are followed; a file that several names lead to (links, hard links, linked
    folders) comes once, under its first name. ``skipped`` is called with the relative name of each
    file, and of each folder with a slash at its end. Raises UserError where the path does not exist
    or no file below it ends in one of ``suffixes``.
    """
    path = path.expanduser()
    if path.is_file():
        return [(path.name, path.absolute())]
    if not path.exists():
        raise UserError(f"{path} does not exist")
    seen: set[tuple[int, int]] = set()
    found = []
    for name, file in sorted(_walk(path.absolute(), set(), "", skipped)):
        if not file.name.endswith(tuple(suffixes)):
            continue
        status = file.stat()
        inode = (status.st_dev, status.st_ino)
        if inode not in seen:
            seen.add(inode)
            found.append((repaired(name)[0], file))
    if not found:
        raise UserError(f"{path} holds no file that ends in {' or '.join(suffixes)}")
    return found


def _walk(
    folder: Path, visited: set[tuple[int, int]], prefix: str, skipped: Callable[[str], bool]
) -> Iterator[tuple[str, Path]]:
    status = folder.stat()
    inode = (status.st_dev, status.st_ino)
    if inode in visited:
        return
    visited.add(inode)
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name = f"{prefix}{entry.name}"
        if entry.is_dir():
            if not skipped(f"{name}/"):
                yield from _walk(folder / entry.name, visited, f"{name}/", skipped)
        elif entry.is_file() and not skipped(name):
            yield name, folder / entry.name


def read_bytes(path: Path) -> bytes:
    """Read a file's bytes. Raises UserError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|[^*?]+")
_MEANING = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


@lru_cache(maxsize=256)
def _pattern(glob: str) -> re.Pattern[str]:
    parts = (_MEANING.get(token, re.escape(token)) for token in _TOKEN.findall(glob))
    return re.compile("".join(parts), re.DOTALL)


def matches(path: str, globs: Sequence[str]) -> bool:
    """Tell whether a relative path with forward slashes fits one of ``globs``."""
    name = path.rsplit("/", 1)[-1]
    return any(_pattern(glob).fullmatch(path if "/" in glob else name) for glob in globs)
