"""A document on the way from raw text to kept text, and the names that a source may have."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from feldspar.core.errors import UserError
from feldspar.core.progress import say
from feldspar.recipe.sections.readers import SOURCE_NAME_PATTERN

_SOURCE_NAME = re.compile(SOURCE_NAME_PATTERN[:-1] + r"\Z")


@dataclass(frozen=True, slots=True)
class Document:
    """One text with its names, its origin and its licence.

    ``id`` is the source's own name for the document; other documents may have the same id. The
    split keeps documents of one ``group`` together (all versions of one file). ``origin`` is the
    place that the document was read from (file, line or row, version), unique within the source.
    ``quality`` is the value that chooses survivors, where a field holds one. ``replaced`` counts
    the characters of the text that were not UTF-8.
    """

    id: str
    source: str
    text: str
    group: str
    origin: str
    licence: str | None = None
    quality: float | None = None
    replaced: int = 0


def check_source_name(name: str, where: str | None = None) -> str:
    """Return ``name``. Raises UserError where it cannot name a folder."""
    if _SOURCE_NAME.match(name) is None:
        raise UserError(
            f"{name!r} cannot name a source",
            where=where,
            allowed="letters, digits, dot, underscore and hyphen, beginning with letter or digit",
        )
    return name


NAMED_BAD_RECORDS = 20
"""How many bad records are told of, one by one."""


class Tolerance:
    """Counts bad records and names the first ones; raises at the first one beyond the limit.

    ``noted`` counts by source and reason the faults that could be repaired.
    """

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self.skipped: dict[str, int] = {}
        self.named: list[str] = []
        self.noted: dict[str, dict[str, int]] = {}

    def note(self, source: str, reason: str, count: int = 1) -> None:
        """Count faults in records of ``source`` that are read in spite of them."""
        own = self.noted.setdefault(source, {})
        own[reason] = own.get(reason, 0) + count

    def skip(self, source: str, error: UserError) -> None:
        """Count one bad record of ``source``; raises ``error`` when there were too many."""
        if sum(self.skipped.values()) >= self.limit:
            raise error
        self.skipped[source] = self.skipped.get(source, 0) + 1
        if len(self.named) <= NAMED_BAD_RECORDS:
            self.named.append(error.what)

    def to_json(self) -> dict[str, Any]:
        """Return the skipped and noted records as plain values, for ``add``."""
        return {"skipped": self.skipped, "named": self.named, "noted": self.noted}

    def add(self, other: Mapping[str, Any]) -> None:
        """Add the counts of another tolerance with the same limit, which came after this one.

        Raises UserError when together they are too many.
        """
        before, named = sum(self.skipped.values()), other["named"]
        if before + sum(other["skipped"].values()) > self.limit:
            raise UserError(
                named[min(self.limit - before, len(named) - 1)],
                allowed=f"at most {self.limit} bad records",
            )
        for source, count in other["skipped"].items():
            self.skipped[source] = self.skipped.get(source, 0) + count
        for source, reasons in other["noted"].items():
            for reason, count in reasons.items():
                self.note(source, reason, count)
        for what in named[: max(0, NAMED_BAD_RECORDS - before)]:
            say(f"left out: {what}")
        if before <= NAMED_BAD_RECORDS < before + len(named):
            say("left out: further bad records, which are counted only")


Documents = Iterator[Document]
