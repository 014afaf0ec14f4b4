"""JSON lines, plain or compressed with gzip or Zstandard."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from feldspar.core.errors import UserError, missing_extra
from feldspar.corpus.document import Documents, Tolerance
from feldspar.corpus.readers.listing import decode, files_below
from feldspar.corpus.readers.records import Fields, RecordReader
from feldspar.corpus.settings import SourceSettings

JSONL_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
_BLOCK_BYTES = 1 << 20


def read_jsonl(
    source: str, settings: SourceSettings, tolerance: Tolerance, quality: str | None = None
) -> Documents:
    """The documents of a source of JSON lines. Raises UserError with file and line."""
    assert settings.path is not None
    fields = Fields(settings.text_field, settings.id_field, settings.group_field, quality=quality)
    reader = RecordReader(fields, source, settings.licence)
    for name, path in files_below(settings.path, JSONL_SUFFIXES):
        yield from jsonl_documents(name, path, reader, tolerance)


def jsonl_documents(name: str, path: Path, reader: RecordReader, tolerance: Tolerance) -> Documents:
    """The documents of one file, called ``name`` in their origin."""
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty")
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            document = reader.document(_object(line, f"{path}:{number}"), f"{name}:{number}")
        except UserError as error:
            tolerance.skip(reader.source or name, error)
        else:
            yield document


def _object(line: bytes, place: str) -> dict[str, Any]:
    text = decode(line, place)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} is not valid JSON", found=text, where=str(error)) from error
    if not isinstance(value, dict):
        raise UserError(f"{place} is not a JSON object", found=text)
    return value


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            if path.name.endswith(".gz"):
                with gzip.open(file) as plain:
                    yield from plain
            elif path.name.endswith(".zst"):
                yield from _split_lines(_zstandard_blocks(file, path))
            else:
                yield from file
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


def _split_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
    if rest:
        yield rest
