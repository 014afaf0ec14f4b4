"""From a record (a JSON object, a Parquet row) to a document."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from feldspar.core.errors import UserError, shorten
from feldspar.corpus.document import Document, check_encodable, check_source_name


@dataclass(frozen=True)
class Fields:
    """Which field of a record holds what; ``source`` is a field only where sources are mixed."""

    text: str = "text"
    id: str = "id"
    group: str | None = None
    source: str | None = None
    quality: str | None = None


@dataclass(frozen=True)
class RecordReader:
    """Turns records into documents of ``source``, or of the source that the record names."""

    fields: Fields
    source: str = ""
    licence: str | None = None

    def document(self, record: Mapping[str, Any], place: str) -> Document:
        """The document of one record read at ``place`` (file and line or row).

        Raises UserError that names the place when the text, the source or the group is missing or
        of another type.
        """
        source = self.source
        if self.fields.source is not None:
            source = _string(record, self.fields.source, place)
            check_source_name(source, place)
        text = check_encodable(_string(record, self.fields.text, place), place)
        name = self._id(record, place) or f"{source}/{place}"
        group = name
        if self.fields.group is not None:
            group = check_encodable(_string(record, self.fields.group, place), place)
        quality = self._quality(record, place)
        return Document(name, source, text, group, place, self.licence, quality)

    def _id(self, record: Mapping[str, Any], place: str) -> str | None:
        value = record.get(self.fields.id)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise UserError(
                f"{place}: field {self.fields.id!r} is neither text nor a whole number",
                found=repr(value),
            )
        return check_encodable(str(value), place)

    def _quality(self, record: Mapping[str, Any], place: str) -> float | None:
        value = record.get(self.fields.quality) if self.fields.quality else None
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise UserError(
                f"{place}: field {self.fields.quality!r} is not a finite number", found=repr(value)
            )
        return float(value)


def _string(record: Mapping[str, Any], field: str, place: str) -> str:
    if field not in record:
        raise UserError(
            f"{place}: the record has no field {field!r}", found=shorten(", ".join(record))
        )
    value = record[field]
    if not isinstance(value, str):
        raise UserError(f"{place}: field {field!r} is not text", found=repr(value))
    return value
