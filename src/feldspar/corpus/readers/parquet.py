"""Parquet files, row group by row group."""

from collections.abc import Sequence
from pathlib import Path

from feldspar.core.errors import UserError, missing_extra
from feldspar.corpus.document import Documents, Tolerance
from feldspar.corpus.readers.listing import files_below
from feldspar.corpus.readers.records import Fields, RecordReader
from feldspar.corpus.settings import SourceSettings

PARQUET_SUFFIXES = (".parquet",)
_BATCH_ROWS = 1024


def read_parquet(
    source: str, settings: SourceSettings, tolerance: Tolerance, quality: str | None = None
) -> Documents:
    """The documents of a source in Parquet. Raises UserError with file and row."""
    assert settings.path is not None
    fields = Fields(settings.text_field, settings.id_field, settings.group_field, quality=quality)
    reader = RecordReader(fields, source, settings.licence)
    for name, path in files_below(settings.path, PARQUET_SUFFIXES):
        yield from parquet_documents(name, path, reader, tolerance)


def parquet_documents(
    name: str, path: Path, reader: RecordReader, tolerance: Tolerance
) -> Documents:
    """The documents of one file, called ``name`` in their origin."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "data") from error
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty")
    try:
        with parquet.ParquetFile(path) as file:
            columns = _columns(file.schema_arrow.names, reader.fields, path)
            row = 0
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                for record in batch.to_pylist():
                    row += 1
                    try:
                        document = reader.document(record, f"{name}:{row}")
                    except UserError as error:
                        tolerance.skip(reader.source or name, error)
                    else:
                        yield document
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is not a whole Parquet file: {reason}") from error
    if row == 0:
        raise UserError(f"{path} holds no row")


def _columns(names: Sequence[str], fields: Fields, path: Path) -> list[str]:
    """The columns to read; the file need not have the one of ids."""
    for needed in (fields.text, fields.source, fields.group):
        if needed is not None and needed not in names:
            raise UserError(f"{path} has no column {needed!r}", found=", ".join(names))
    wanted = {fields.text, fields.id, fields.source, fields.group, fields.quality}
    return [name for name in names if name in wanted]
