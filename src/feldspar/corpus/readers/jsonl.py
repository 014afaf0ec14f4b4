"""JSON lines, plain or compressed with gzip or Zstandard."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from feldspar.core.errors import UserError, missing_extra
from feldspar.corpus.document import Documents, Tolerance
from feldspar.corpus.encoding import decode
from feldspar.corpus.readers.lines import LONGEST_LINE_BYTES, bounded_lines
from feldspar.corpus.readers.listing import files_below
from feldspar.corpus.readers.records import RecordReader, documents_of, fields_of
from feldspar.corpus.settings import SourceSettings

JSONL_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
_BLOCK_BYTES = 1 << 20


def read_jsonl(
    source: str, settings: SourceSettings, tolerance: Tolerance, quality: str | None = None
) -> Documents:
    """The documents of a source of JSON lines. Raises UserError with file and line."""
    assert settings.path is not None
    reader = RecordReader(fields_of(settings, quality), source, settings.licence)
    for name, path in files_below(settings.path, JSONL_SUFFIXES):
        yield from jsonl_documents(name, path, reader, tolerance)


def jsonl_documents(name: str, path: Path, reader: RecordReader, tolerance: Tolerance) -> Documents:
    """The documents of one file, called ``name`` in their origin."""
    rows = jsonl_records(name, path, reader.source or name, tolerance)
    yield from documents_of(rows, reader, tolerance)


def jsonl_records(
    name: str, path: Path, source: str, tolerance: Tolerance
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The place, beginning with ``name``, and the record of each line that is not blank."""
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty")
    for number, line in enumerate(bounded_lines(_blocks(path)), start=1):
        if line is not None and not line.strip():
            continue
        try:
            record = _object(line, f"{path}:{number}")
        except UserError as error:
            tolerance.skip(source, error)
        else:
            yield f"{name}:{number}", record


def _object(line: bytes | None, place: str) -> dict[str, Any]:
    if line is None:
        raise UserError(f"{place} is longer than {LONGEST_LINE_BYTES >> 20} MiB")
    text = decode(line, place)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} is not valid JSON", found=text, where=str(error)) from error
    if not isinstance(value, dict):
        raise UserError(f"{place} is not a JSON object", found=text)
    return value


def _blocks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            if path.name.endswith(".gz"):
                with gzip.open(file) as plain:
                    yield from iter(lambda: plain.read(_BLOCK_BYTES), b"")
            elif path.name.endswith(".zst"):
                yield from _zstandard_blocks(file, path)
            else:
                yield from iter(lambda: file.read(_BLOCK_BYTES), b"")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is truncated or damaged: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def _zstandard_blocks(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """Decompressed blocks; unlike the library's own reader it notices a truncated last frame."""
    try:
        import zstandard
    except ImportError as error:
        raise missing_extra("zstandard", "data") from error
    frame = zstandard.ZstdDecompressor().decompressobj()
    fed = False
    try:
        while data := file.read(_BLOCK_BYTES):
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
