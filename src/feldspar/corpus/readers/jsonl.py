"""Read JSON lines, plain or compressed with gzip or Zstandard."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from feldspar.core.errors import UserError
from feldspar.corpus.document import Documents, Tolerance
from feldspar.corpus.encoding import decode
from feldspar.corpus.readers.blocks import (
    BLOCK_BYTES,
    LONGEST_LINE_BYTES,
    bounded_lines,
    decompressed,
    opened,
)
from feldspar.corpus.readers.listing import files_below
from feldspar.corpus.readers.pieces import PIECE_BYTES, Piece, file_piece
from feldspar.corpus.readers.records import RecordReader, documents_of, fields_of
from feldspar.recipe.sections.corpus import SourceSettings

JSONL_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")


def jsonl_pieces(
    source: str, settings: SourceSettings, quality: str | None = None
) -> Iterator[Piece]:
    """Yield the files of a source of JSON lines as pieces."""
    assert settings.path is not None
    reader = RecordReader(fields_of(settings, quality), source, settings.licence)
    for name, path in files_below(settings.path, JSONL_SUFFIXES):
        yield from jsonl_pieces_of(name, path, reader)


@dataclass(frozen=True)
class Lines:
    """Lines of a plain file, from byte ``start`` to byte ``end``; the first is line ``number``."""

    start: int
    end: int
    number: int


def jsonl_pieces_of(name: str, path: Path, reader: RecordReader) -> Iterator[Piece]:
    """Yield the ranges of one plain file, or all of a compressed one; ``name`` is its origin."""
    read = partial(jsonl_documents, name, path, reader)
    whole = file_piece(partial(read, None), path)
    if path.name.endswith(".jsonl") and whole.bytes > PIECE_BYTES:
        for lines in _ranges(path):
            yield Piece(partial(read, lines), lines.end - lines.start, whole.state)
    else:
        yield whole


def _ranges(path: Path) -> Iterator[Lines]:
    """Yield ranges of whole lines of about ``PIECE_BYTES``."""
    start, number, offset = 0, 1, 0
    with opened(path) as file:
        while block := file.read(PIECE_BYTES):
            if (last := block.rfind(b"\n")) >= 0:
                yield Lines(start, offset + last + 1, number)
                start, number = offset + last + 1, number + block.count(b"\n")
            offset += len(block)
    if start < offset:
        yield Lines(start, offset, number)


def jsonl_documents(
    name: str, path: Path, reader: RecordReader, lines: Lines | None, tolerance: Tolerance
) -> Documents:
    """Yield the documents of some or all lines. Raises UserError with file and line."""
    rows = jsonl_records(name, path, reader.source, tolerance, lines)
    yield from documents_of(rows, reader, tolerance)


def jsonl_records(
    name: str, path: Path, source: str, tolerance: Tolerance, lines: Lines | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place, beginning with ``name``, and the record of each line that is not blank."""
    first = lines.number if lines else 1
    for number, line in enumerate(bounded_lines(_blocks(path, lines)), start=first):
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


def _blocks(path: Path, lines: Lines | None) -> Iterator[bytes]:
    with opened(path) as file:
        if lines is None:
            yield from decompressed(file, path)
            return
        file.seek(lines.start)
        for start in range(lines.start, lines.end, BLOCK_BYTES):
            yield file.read(min(BLOCK_BYTES, lines.end - start))
