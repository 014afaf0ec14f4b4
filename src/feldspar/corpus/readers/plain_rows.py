"""Batches of Parquet whose columns are plain text become tables of documents column by column.

Whatever is not as it should be (a null, a number, bad UTF-8, a source that cannot be a folder) is
left to ``records``, which says what is wrong with which row.
"""

from typing import Any

import numpy as np

from feldspar.core.errors import UserError
from feldspar.corpus.columns import arrow, text_sizes
from feldspar.corpus.document import check_source_name
from feldspar.corpus.parts import part_schema
from feldspar.corpus.readers.records import RecordReader


def plain_table(batch: Any, name: str, first: int, reader: RecordReader) -> Any | None:
    """The documents of a batch, or None where they have to be looked at one by one.

    The batch begins at row ``first`` of the file called ``name``.
    """
    pyarrow, _ = arrow()
    fields = reader.fields
    size = len(batch)
    if fields.group or fields.quality or fields.only or not size:
        return None
    try:
        batch.validate(full=True)
        text = _texts(batch, fields.text)
        if fields.source is None:
            sources = pyarrow.array([reader.source] * size)
        else:
            sources = _texts(batch, fields.source)
            for source in sources.unique().to_pylist():
                check_source_name(source)
        places = [f"{name}:{row}" for row in range(first, first + size)]
        ids = _ids(batch, fields.id)
        if ids is None:
            known = zip(sources.to_pylist(), places, strict=True)
            ids = pyarrow.array([f"{source}/{place}" for source, place in known])
    except (pyarrow.ArrowException, UserError, UnicodeDecodeError):
        return None
    licences = pyarrow.array([reader.licence] * size, pyarrow.string())
    unknown, replaced = pyarrow.nulls(size), pyarrow.array(np.zeros(size, np.uint32))
    columns = [ids, sources, text, ids, pyarrow.array(places), licences, unknown, replaced]
    schema = part_schema()
    return pyarrow.table(
        [column.cast(kind) for column, kind in zip(columns, schema.types, strict=True)],
        schema=schema,
    )


def _texts(batch: Any, name: str) -> Any:
    """A column of texts. Raises ArrowInvalid when it is none, or has nulls."""
    pyarrow, _ = arrow()
    column = (
        batch.column(batch.schema.get_field_index(name)) if name in batch.schema.names else None
    )
    kinds = pyarrow.types
    if column is None or column.null_count:
        raise pyarrow.ArrowInvalid(name)
    if not (kinds.is_string(column.type) or kinds.is_large_string(column.type)):
        raise pyarrow.ArrowInvalid(name)
    return column


def _ids(batch: Any, name: str) -> Any | None:
    """The column of ids; None when there is none. Raises ArrowInvalid when some are missing."""
    pyarrow, _ = arrow()
    if name not in batch.schema.names:
        return None
    column = batch.column(name)
    if pyarrow.types.is_integer(column.type) and not column.null_count:
        return column.cast(pyarrow.string())
    column = _texts(batch, name)
    if not text_sizes(column).all():
        raise pyarrow.ArrowInvalid(name)
    return column
