"""Turn a record (a JSON object, a row of a table) into a document.

A name with dots, ``meta.set``, is a field in a nested record, unless a field has the whole name.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from feldspar.core.errors import UserError, shorten
from feldspar.corpus.document import Document, Documents, Tolerance, check_source_name
from feldspar.corpus.encoding import check_encodable, repaired
from feldspar.recipe.sections.corpus import SourceSettings


@dataclass(frozen=True)
class Fields:
    """The names of a record's fields; ``source`` only where files mix sources."""

    text: str = "text"
    id: str = "id"
    group: str | None = None
    source: str | None = None
    quality: str | None = None
    only: Mapping[str, str] = field(default_factory=dict)
    """Fields and the values that a record must have to be read at all."""


def fields_of(settings: SourceSettings, quality: str | None = None) -> Fields:
    """Return the fields that a source's settings name, and the one that ranks duplicates."""
    return Fields(
        settings.text_field,
        settings.id_field,
        settings.group_field,
        quality=quality,
        only=settings.only,
    )


def column_of(field: str, names: Container[str]) -> str:
    """Return the top-level field that ``field`` is, or lies in."""
    return field if field in names else field.split(".", 1)[0]


@dataclass(frozen=True)
class RecordReader:
    """Turns records into documents of the source that the record names, or else of ``source``."""

    fields: Fields
    source: str
    licence: str | None = None

    def wanted(self, record: Mapping[str, Any]) -> bool:
        """Tell whether the record has the values that ``only`` asks for."""
        return all(value_of(record, name) == value for name, value in self.fields.only.items())

    def document(self, record: Mapping[str, Any], place: str) -> Document:
        """Return the document of one record read at ``place`` (file and line or row).

        Raises UserError that names the place when the text, the source or the group is missing or
        of another type, or the id or the group is not UTF-8.
        """
        source = self.source
        if self.fields.source is not None and self.fields.source in record:
            source = _string(record, self.fields.source, place)
            check_source_name(source, place)
        text, replaced = repaired(_string(record, self.fields.text, place))
        name = self._id(record, place) or f"{source}/{place}"
        group = name
        if self.fields.group is not None:
            group = _string(record, self.fields.group, place)
            check_encodable(group, f"{place}: field {self.fields.group!r}")
        quality = self._quality(record, place)
        return Document(name, source, text, group, place, self.licence, quality, replaced)

    def _id(self, record: Mapping[str, Any], place: str) -> str | None:
        value = value_of(record, self.fields.id)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise UserError(
                f"{place}: field {self.fields.id!r} is neither text nor a whole number",
                found=repr(value),
            )
        return check_encodable(str(value), f"{place}: field {self.fields.id!r}")

    def _quality(self, record: Mapping[str, Any], place: str) -> float | None:
        value = value_of(record, self.fields.quality) if self.fields.quality else None
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise UserError(
                f"{place}: field {self.fields.quality!r} is not a finite number", found=repr(value)
            )
        return float(value)


def documents_of(
    rows: Iterable[tuple[str, Mapping[str, Any]]], reader: RecordReader, tolerance: Tolerance
) -> Documents:
    """Yield the documents of the wanted records, each given with its place."""
    for place, record in rows:
        if not reader.wanted(record):
            continue
        try:
            document = reader.document(record, place)
        except UserError as error:
            tolerance.skip(reader.source, error)
        else:
            yield document


def value_of(record: Mapping[str, Any], name: str) -> Any:
    """Return a field's value, also in nested records (name with dots); None without one."""
    if name in record or "." not in name:
        return record.get(name)
    outer, inner = name.split(".", 1)
    nested = record.get(outer)
    return value_of(nested, inner) if isinstance(nested, Mapping) else None


def _string(record: Mapping[str, Any], name: str, place: str) -> str:
    value = value_of(record, name)
    if isinstance(value, str):
        return value
    if value is None and column_of(name, record) not in record:
        raise UserError(
            f"{place}: the record has no field {name!r}",
            found=shorten(", ".join(record)),
            do="name the field that holds it: text_field in a recipe, --text-field of corpus dedup",
        )
    raise UserError(f"{place}: field {name!r} is not text", found=shorten(repr(value)))
