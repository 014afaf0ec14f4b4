"""Parquet files, row group by row group."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from feldspar.core.errors import UserError
from feldspar.corpus.columns import arrow
from feldspar.corpus.document import Document, Documents, Tolerance
from feldspar.corpus.parts import DocumentTable
from feldspar.corpus.readers.listing import files_below
from feldspar.corpus.readers.plain_rows import plain_table
from feldspar.corpus.readers.plain_values import plain_values
from feldspar.corpus.readers.records import Fields, RecordReader, column_of, documents_of, fields_of
from feldspar.corpus.settings import SourceSettings

PARQUET_SUFFIXES = (".parquet",)
_BATCH_ROWS = 1024


def read_parquet(
    source: str, settings: SourceSettings, tolerance: Tolerance, quality: str | None = None
) -> Documents:
    """The documents of a source in Parquet. Raises UserError with file and row."""
    assert settings.path is not None
    reader = RecordReader(fields_of(settings, quality), source, settings.licence)
    for name, path in files_below(settings.path, PARQUET_SUFFIXES):
        yield from parquet_documents(name, path, reader, tolerance)


def parquet_documents(
    name: str, path: Path, reader: RecordReader, tolerance: Tolerance
) -> Documents:
    """The documents of one file, called ``name`` in their origin."""
    yield from documents_of(parquet_records(name, path, reader.fields), reader, tolerance)


def parquet_tables(
    name: str, path: Path, reader: RecordReader, tolerance: Tolerance
) -> Iterator[Document | DocumentTable]:
    """The same documents, in tables wherever the file's columns are plain."""
    for first, batch in _batches(path, reader.fields):
        table = plain_table(batch, name, first, reader)
        if table is not None:
            yield DocumentTable(table)
        else:
            yield from documents_of(_records(name, path, first, batch), reader, tolerance)


def parquet_records(
    name: str, path: Path, fields: Fields | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The place, beginning with ``name``, and the record of each row: the ``fields``, or all."""
    for first, batch in _batches(path, fields):
        yield from _records(name, path, first, batch)


def _records(name: str, path: Path, first: int, batch: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    with _whole(path):
        records = plain_values(batch)
    for row, record in enumerate(records, first):
        yield f"{name}:{row}", record


def _batches(path: Path, fields: Fields | None) -> Iterator[tuple[int, Any]]:
    """Batches of rows, each with the number of its first row, from 1."""
    _, parquet = arrow()
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty")
    row = 1
    with _whole(path), parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        columns = names if fields is None else _columns(names, fields, path)
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
            yield row, batch
            row += len(batch)
    if row == 1:
        raise UserError(f"{path} holds no row")


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    pyarrow, _ = arrow()
    try:
        yield
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is not a whole Parquet file: {reason}") from error


def _columns(names: Sequence[str], fields: Fields, path: Path) -> list[str]:
    """The columns to read; the file need not have the one of ids."""
    for needed in (fields.text, fields.source, fields.group, *fields.only):
        if needed is not None and column_of(needed, names) not in names:
            raise UserError(f"{path} has no column {needed!r}", found=", ".join(names))
    keys = (fields.text, fields.id, fields.source, fields.group, fields.quality, *fields.only)
    wanted = {column_of(key, names) for key in keys if key is not None}
    return [name for name in names if name in wanted]
