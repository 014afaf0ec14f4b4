"""Read Parquet files, row group by row group."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from feldspar.core.errors import UserError
from feldspar.corpus.columns import arrow
from feldspar.corpus.document import Tolerance
from feldspar.corpus.parts import DocumentTable
from feldspar.corpus.read_progress import bytes_read
from feldspar.corpus.readers.listing import files_below
from feldspar.corpus.readers.pieces import PIECE_BYTES, Piece, Read, file_state
from feldspar.corpus.readers.plain_rows import plain_table, plain_values
from feldspar.corpus.readers.records import Fields, RecordReader, column_of, documents_of, fields_of
from feldspar.recipe.sections.corpus import SourceSettings

PARQUET_SUFFIXES = (".parquet",)
_BATCH_ROWS = 1024
_BUFFER_BYTES = 1 << 20
"""Bytes of a column, and of rows, that are read at a time: not whole row groups."""


@dataclass(frozen=True)
class RowGroups:
    """Consecutive row groups of a file; their first row is ``row``, counted from 1."""

    groups: range
    row: int


def parquet_pieces(
    source: str, settings: SourceSettings, quality: str | None = None
) -> Iterator[Piece]:
    """Yield the files of a source in Parquet as pieces, large ones a few row groups each."""
    assert settings.path is not None
    reader = RecordReader(fields_of(settings, quality), source, settings.licence)
    for name, path in files_below(settings.path, PARQUET_SUFFIXES):
        yield from parquet_pieces_of(name, path, reader)


def parquet_pieces_of(name: str, path: Path, reader: RecordReader) -> Iterator[Piece]:
    """Yield the pieces of one file; ``name`` is its origin. Raises UserError if damaged."""
    for rows, size in _row_groups(path):
        yield Piece(partial(parquet_documents, name, path, reader, rows), size, file_state(path))


def _row_groups(path: Path) -> Iterator[tuple[RowGroups, int]]:
    """Yield row groups of about ``PIECE_BYTES`` together, and their bytes of plain columns."""
    _, parquet = arrow()
    with _whole(path):
        metadata = parquet.read_metadata(path)
    if metadata.num_rows == 0:
        raise UserError(f"{path} holds no row")
    start, row, rows, size = 0, 1, 0, 0
    for group in range(metadata.num_row_groups):
        described = metadata.row_group(group)
        rows += described.num_rows
        size += described.total_byte_size
        if size >= PIECE_BYTES or group + 1 == metadata.num_row_groups:
            yield RowGroups(range(start, group + 1), row), size
            start, row, rows, size = group + 1, row + rows, 0, 0


def parquet_documents(
    name: str, path: Path, reader: RecordReader, rows: RowGroups | None, tolerance: Tolerance
) -> Read:
    """Yield the documents of some or all rows, as tables where the columns are plain text.

    Raises UserError with file and row.
    """
    for first, batch in _batches(path, reader.fields, rows):
        table = plain_table(batch, name, first, reader)
        if table is not None:
            yield DocumentTable(table)
        else:
            yield from documents_of(_records(name, path, first, batch), reader, tolerance)


def parquet_records(
    name: str, path: Path, fields: Fields | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place, beginning with ``name``, and the record of each row: ``fields`` or all."""
    for first, batch in _batches(path, fields):
        yield from _records(name, path, first, batch)


def _records(name: str, path: Path, first: int, batch: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    with _whole(path):
        records = plain_values(batch)
    for row, record in enumerate(records, first):
        yield f"{name}:{row}", record


def _batches(
    path: Path, fields: Fields | None, rows: RowGroups | None = None
) -> Iterator[tuple[int, Any]]:
    """Yield batches of rows, each with the number of its first row, from 1."""
    _, parquet = arrow()
    row = rows.row if rows else 1
    groups = list(rows.groups) if rows else None
    opened = parquet.ParquetFile
    with _whole(path), opened(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
        names = file.schema_arrow.names
        columns = names if fields is None else _columns(names, fields, path)
        together = _rows_together(file.metadata, groups)
        for batch in file.iter_batches(together, groups, columns, use_threads=False):
            yield row, batch
            bytes_read(batch.nbytes)
            row += len(batch)
    if row == 1:
        raise UserError(f"{path} holds no row")


def _rows_together(metadata: Any, groups: Sequence[int] | None) -> int:
    """Choose so many rows that they hold about ``_BUFFER_BYTES``, where rows are longest."""
    numbers = range(metadata.num_row_groups) if groups is None else groups
    described = (metadata.row_group(number) for number in numbers)
    longest = max((each.total_byte_size / max(1, each.num_rows) for each in described), default=1)
    return max(1, min(_BATCH_ROWS, int(_BUFFER_BYTES / max(1, longest))))


@contextmanager
def _whole(path: Path) -> Generator[None]:
    pyarrow, _ = arrow()
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty")
        yield
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is not a whole Parquet file: {reason}") from error


def _columns(names: Sequence[str], fields: Fields, path: Path) -> list[str]:
    """Choose the columns to read; the file need not have those of ids and of sources."""
    for needed in (fields.text, fields.group, *fields.only):
        if needed is not None and column_of(needed, names) not in names:
            raise UserError(
                f"{path} has no column {needed!r}",
                found=", ".join(names),
                do="name the column that holds it: text_field in a recipe, --text-field of "
                "corpus dedup",
            )
    keys = (fields.text, fields.id, fields.source, fields.group, fields.quality, *fields.only)
    wanted = {column_of(key, names) for key in keys if key is not None}
    return [name for name in names if name in wanted]
