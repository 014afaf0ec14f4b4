"""Find the fields of records that hold a document's text and its name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feldspar.core.errors import UserError
from feldspar.corpus.readers.records import value_of

KNOWN_TEXT = ("text", "content", "contents", "body", "raw_content", "document", "article", "code")
"""Names that mean the text of a document, in order of preference."""
KNOWN_IDS = ("id", "_id", "doc_id", "uuid", "url", "uri", "path", "title")
"""Names that mean the name of a document, in order of preference."""
SHORT_CHARACTERS = 40
"""A field with a shorter mean holds names or labels, not text."""
CLEARLY_LONGER = 4.0
"""Of two fields that look like text, one that is so many times as long is taken without a word."""
DEEPEST = 3
"""Levels of nested records that are searched."""
NO_ID = "no_id"
"""Name of a field that no record has: documents are then named by file and line."""


@dataclass(frozen=True)
class TextField:
    """A field that may hold the text, with the mean of its characters."""

    name: str
    characters: float


@dataclass(frozen=True)
class Fields:
    """The fields that were chosen."""

    text: str
    id: str
    why: str
    """Why this field was taken for the text."""


def choose_fields(records: Sequence[Mapping[str, Any]], where: str, wanted: str | None) -> Fields:
    """Choose the fields of text and name of ``records``, a sample of the records at ``where``.

    ``wanted`` is the user's choice of the field of text. Raises UserError where no field looks like
    text, where two do, and where ``wanted`` is no field of text.
    """
    candidates = text_fields(records)
    if wanted is not None:
        if not any(isinstance(value_of(record, wanted), str) for record in records):
            raise UserError(
                f"{where}: no record has the field of text {wanted!r}",
                found=", ".join(_names(records)) or "no record",
                do="name another field: --text-field NAME",
            )
        return Fields(wanted, _id_field(records, wanted), "given by --text-field")
    if not candidates:
        raise UserError(
            f"{where}: no field holds a text in every record",
            found=", ".join(_names(records)) or "no record",
            do="name the field that holds the text: --text-field NAME",
        )
    chosen, why = _choice(candidates, where)
    return Fields(chosen, _id_field(records, chosen), why)


def text_fields(records: Sequence[Mapping[str, Any]]) -> list[TextField]:
    """Return the fields that hold a string in every record, the longest first."""
    found = []
    for name in _names(records):
        values = [value_of(record, name) for record in records]
        if all(isinstance(value, str) for value in values):
            mean = sum(map(len, values)) / len(values)
            if mean > 0:
                found.append(TextField(name, mean))
    return sorted(found, key=lambda each: (-each.characters, each.name))


def _choice(candidates: list[TextField], where: str) -> tuple[str, str]:
    """Return the field that holds the text, and why."""
    longest, *others = candidates
    by_name = {each.name.rsplit(".", 1)[-1].lower(): each for each in reversed(candidates)}
    known = next((by_name[name] for name in KNOWN_TEXT if name in by_name), None)
    if known is not None and known.characters >= SHORT_CHARACTERS:
        return known.name, f"its name, {known.characters:,.0f} characters on average"
    if not others:
        return longest.name, "the only field of text"
    if longest.characters >= CLEARLY_LONGER * others[0].characters:
        return longest.name, f"the longest field, {longest.characters:,.0f} characters on average"
    alike = [each for each in candidates if each.characters * CLEARLY_LONGER > longest.characters]
    raise AmbiguousFieldError(where, alike)


class AmbiguousFieldError(UserError):
    """Several fields look like the text."""

    def __init__(self, where: str, alike: list[TextField]) -> None:
        told = ", ".join(f"{each.name} ({each.characters:,.0f} characters)" for each in alike)
        super().__init__(
            f"{where}: {len(alike)} fields look like the text",
            found=told,
            do=f"say which one to train on: --text-field {alike[0].name}",
        )
        self.alike = alike


def _id_field(records: Sequence[Mapping[str, Any]], text: str) -> str:
    """Return the first field by a known name whose values can name documents, each another."""
    for name in KNOWN_IDS:
        values = [record.get(name) for record in records]
        proper = all(isinstance(each, str | int) and not isinstance(each, bool) for each in values)
        if name != text and proper and len(set(values)) == len(values):
            return name
    return NO_ID if any("id" in record for record in records) else "id"


def _names(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the dotted names of all fields, in the order in which they appear."""
    names: dict[str, None] = {}
    for record in records:
        names |= dict.fromkeys(_names_in(record, "", 1))
    return list(names)


def _names_in(record: Mapping[str, Any], prefix: str, depth: int) -> Iterator[str]:
    for name, value in record.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping) and depth < DEEPEST and "." not in name:
            yield from _names_in(value, f"{prefix}{name}.", depth + 1)
