"""Read the items of evaluation sets from files."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from feldspar.core.errors import UserError
from feldspar.corpus.document import Tolerance
from feldspar.corpus.encoding import check_encodable, decode
from feldspar.corpus.readers.jsonl import JSONL_SUFFIXES, jsonl_records
from feldspar.corpus.readers.listing import files_below, read_bytes
from feldspar.corpus.readers.parquet import PARQUET_SUFFIXES, parquet_records
from feldspar.corpus.readers.records import value_of

TEXT_SUFFIXES = (".txt",)


def evaluation_items(
    name: str, path: Path, fields: Sequence[str], tolerance: Tolerance
) -> Iterator[str]:
    """Yield a text for each item: a text file, or the named fields of a record (default: all).

    The texts of a record's fields (also nested: lists of choices) are joined in their order, since
    harnesses show them one after the other. Raises UserError with file and line where a field is
    missing, or a text is not UTF-8: with a character replaced, overlaps would be overlooked.
    """
    for file_name, file in files_below(path, (*JSONL_SUFFIXES, *PARQUET_SUFFIXES, *TEXT_SUFFIXES)):
        if file_name.endswith(TEXT_SUFFIXES):
            yield check_encodable(decode(read_bytes(file), str(file)), str(file))
            continue
        if file_name.endswith(PARQUET_SUFFIXES):
            rows = parquet_records(file_name, file)
        else:
            rows = jsonl_records(file_name, file, name, tolerance)
        for place, record in rows:
            texts = _texts([_field(record, key, place) for key in fields] or record)
            yield check_encodable(" ".join(texts), f"{place}: the record")


def _field(record: dict[str, Any], name: str, place: str) -> Any:
    value = value_of(record, name)
    if value is None:
        raise UserError(f"{place}: the record has no field {name!r}", found=", ".join(record))
    return value


def _texts(value: Any) -> Iterator[str]:
    left = [value]  # no recursion: records may be nested as deeply as JSON allows
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            left += reversed(value.values())
        elif isinstance(value, list):
            left += reversed(value)
