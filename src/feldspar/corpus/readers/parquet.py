"""Parquet files, row group by row group."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from feldspar.core.errors import UserError, missing_extra
from feldspar.corpus.document import Documents, Tolerance
from feldspar.corpus.readers.listing import files_below
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


def parquet_records(
    name: str, path: Path, fields: Fields | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The place, beginning with ``name``, and the record of each row: the ``fields``, or all."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "data") from error
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty")
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            columns = names if fields is None else _columns(names, fields, path)
            row = 0
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                for record in batch.to_pylist():
                    row += 1
                    yield f"{name}:{row}", record
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is not a whole Parquet file: {reason}") from error
    if row == 0:
        raise UserError(f"{path} holds no row")


def _columns(names: Sequence[str], fields: Fields, path: Path) -> list[str]:
    """The columns to read; the file need not have the one of ids."""
    for needed in (fields.text, fields.source, fields.group, *fields.only):
        if needed is not None and column_of(needed, names) not in names:
            raise UserError(f"{path} has no column {needed!r}", found=", ".join(names))
    keys = (fields.text, fields.id, fields.source, fields.group, fields.quality, *fields.only)
    wanted = {column_of(key, names) for key in keys if key is not None}
    return [name for name in names if name in wanted]
