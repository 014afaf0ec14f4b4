"""Turn batches of Arrow rows into tables of documents, or into plain Python values.

A batch with anything unusual (a null, a number, bad UTF-8, a source that cannot name a folder) is
left to ``records``, which names the row and what is wrong with it. Arrow's files may hold any bytes
as texts: neither writers nor readers check them.
"""

from typing import Any

import numpy as np

from feldspar.core.errors import UserError
from feldspar.corpus.columns import arrow, column_of, text_scalar, text_sizes
from feldspar.corpus.document import check_source_name
from feldspar.corpus.parts import part_schema
from feldspar.corpus.readers.records import RecordReader


def plain_table(batch: Any, name: str, first: int, reader: RecordReader) -> Any | None:
    """Return the documents of a batch as a table; None where rows need a look one by one.

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
        if fields.source is None or fields.source not in batch.schema.names:
            sources = _repeated(reader.source, size)
        else:
            sources = _texts(batch, fields.source)
            for source in sources.unique().to_pylist():
                check_source_name(source)
        rows = column_of(np.arange(first, first + size)).cast(pyarrow.string())
        places = _put_together(f"{name}:", rows, "")
        ids = _ids(batch, fields.id)
        if ids is None:
            ids = _put_together(sources, places, "/")
    except (pyarrow.ArrowException, UserError, UnicodeError):
        return None
    licences = _repeated(reader.licence, size)
    unknown, replaced = pyarrow.nulls(size), column_of(np.zeros(size, np.uint32))
    columns = [ids, sources, text, ids, places, licences, unknown, replaced]
    schema = part_schema()
    return pyarrow.table(
        [column.cast(kind) for column, kind in zip(columns, schema.types, strict=True)],
        schema=schema,
    )


def _repeated(value: str | None, size: int) -> Any:
    """Return a column of one text, or of nulls."""
    pyarrow, _ = arrow()
    if value is None:
        return pyarrow.nulls(size, pyarrow.string())
    return pyarrow.repeat(text_scalar(value), size)


def _put_together(*texts: Any) -> Any:
    """Join columns or single texts row by row; the last one is the separator."""
    from pyarrow import compute, string

    columns = [
        text_scalar(text) if isinstance(text, str) else text.cast(string()) for text in texts
    ]
    return compute.call_function("binary_join_element_wise", columns)


def _texts(batch: Any, name: str) -> Any:
    """Return a column of texts. Raises ArrowInvalid where it is none, or has nulls."""
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
    """Return the column of ids; None without one. Raises ArrowInvalid where some are missing."""
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


def plain_values(batch: Any) -> list[dict[str, Any]]:
    """Return a dictionary for each row; bytes that are not UTF-8 become half surrogate pairs."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        rows = zip(*batch.columns, strict=True)
        names = batch.schema.names
        return [dict(zip(names, map(_value, row), strict=True)) for row in rows]


def _value(scalar: Any) -> Any:
    pyarrow, _ = arrow()
    if not scalar.is_valid:
        return None
    if isinstance(scalar, pyarrow.DictionaryScalar):
        return _value(scalar.value)
    if isinstance(scalar, pyarrow.StructScalar):
        return {name: _value(inner) for name, inner in scalar.items()}
    if isinstance(scalar, pyarrow.ListScalar):
        return [_value(inner) for inner in scalar.values]
    if isinstance(scalar, pyarrow.StringScalar):
        return scalar.as_buffer().to_pybytes().decode("utf-8", "surrogateescape")
    return scalar.as_py()
