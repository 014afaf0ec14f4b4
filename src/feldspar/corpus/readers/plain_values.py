"""Rows of Arrow as Python values, also where a text in them is not UTF-8.

Arrow's files may hold any bytes as texts: they are checked by nobody who writes or reads them.
"""

from typing import Any

from feldspar.corpus.columns import arrow


def plain_values(batch: Any) -> list[dict[str, Any]]:
    """One dictionary for each row; a byte that is not UTF-8 as half a surrogate pair."""
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
