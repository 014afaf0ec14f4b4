"""Pieces of a source that can be read one by one: a file, some rows of it, or the whole source."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from feldspar.core.files import digest_of
from feldspar.corpus.document import Document
from feldspar.corpus.parts import DocumentTable

PIECE_BYTES = 8 << 20
"""Files that can be divided are cut into pieces of about this size."""
Read = Iterator[Document | DocumentTable]


@dataclass(frozen=True)
class Piece:
    """A part of a source; the documents of all pieces, in order, are those of the source.

    ``read`` takes a ``Tolerance``. It is a top-level function with its other arguments bound, so
    that another process can read the piece. ``here`` is set where only this machine can read it,
    since another machine may hold something else under the same name. ``bytes`` is its rough size.
    """

    read: "partial[Read]"
    bytes: int
    state: str
    """What changes with the content."""
    here: bool = False

    @property
    def digest(self) -> str:
        """Hash everything that decides the documents."""
        read = self.read
        return digest_of(read.func.__qualname__, repr(read.args), repr(read.keywords), self.state)


def file_piece(read: "partial[Read]", path: Path, here: bool = False) -> Piece:
    """Return the piece of a file that is read as a whole."""
    return Piece(read, path.stat().st_size, file_state(path), here)


def file_state(path: Path) -> str:
    """Return a file's size and time, which change with its content."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"
