"""Read files in blocks or lines, plain or compressed; a file that was cut is an error."""

import gzip
import io
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from feldspar.core.errors import UserError, missing_extra
from feldspar.corpus.read_progress import bytes_read

BLOCK_BYTES = 1 << 20


class _CountedFile:
    """A file that counts the bytes that are read from it, before they are decompressed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """Read and count."""
        data = self._file.read(size)
        bytes_read(len(data))
        return data

    def __getattr__(self, name: str) -> Any:
        """Take everything else from the file itself."""
        return getattr(self._file, name)


@contextmanager
def opened(path: Path, counted: bool = True) -> Generator[BinaryIO]:
    """Open a file, whose reading counts as progress unless ``counted`` is off.

    Raises UserError in the block for one that is empty, unreadable or cut.
    """
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise UserError(f"{path} is empty")
            yield cast("BinaryIO", _CountedFile(file)) if counted else file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is truncated or damaged: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def decompressed(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """Yield the content of an open file, decompressed where the name of ``path`` says so."""
    if path.name.endswith(".gz"):
        with gzip.open(file) as plain:
            yield from iter(lambda: plain.read(BLOCK_BYTES), b"")
    elif path.name.endswith(".zst"):
        yield from _zstandard_blocks(file, path)
    else:
        yield from iter(lambda: file.read(BLOCK_BYTES), b"")


def _zstandard_blocks(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """Yield decompressed blocks; the library's own reader does not notice a cut last frame."""
    try:
        import zstandard
    except ImportError as error:
        raise missing_extra("zstandard", "data") from error
    frame = zstandard.ZstdDecompressor().decompressobj()
    fed = False
    try:
        while data := file.read(BLOCK_BYTES):
            while data:
                yield frame.decompress(data)
                fed = True
                data = frame.unused_data if frame.eof else b""
                if frame.eof:
                    frame = zstandard.ZstdDecompressor().decompressobj()
                    fed = False
    except zstandard.ZstdError as error:
        raise UserError(f"{path} is truncated or damaged: {error}") from error
    if fed:
        raise UserError(f"{path} is truncated or damaged: its last frame has no end")


class BlockStream(io.RawIOBase):
    """Blocks as one stream, to be read through ``io.BufferedReader``."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        """Answer that it can be read."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer`` as far as one block goes; 0 at the end."""
        while not self._left:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._left = memoryview(block)
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


LONGEST_LINE_BYTES = 64 << 20
"""A longer line is no record: it is passed over without being held in memory."""


def bounded_lines(
    blocks: Iterable[bytes], longest: int = LONGEST_LINE_BYTES
) -> Iterator[bytes | None]:
    """Yield each line without its end; None for a line of more than ``longest`` bytes."""
    pieces: list[bytes] = []
    held = 0
    for block in blocks:
        first, *others = block.split(b"\n")
        for position, piece in enumerate((first, *others)):
            if position:
                yield _line(pieces, held, longest)
                pieces, held = [], 0
            held += len(piece)
            if held <= longest:
                pieces.append(piece)
            else:
                pieces = []
    if held:
        yield _line(pieces, held, longest)


def _line(pieces: list[bytes], held: int, longest: int) -> bytes | None:
    return b"".join(pieces) if held <= longest else None
