"""Measure a pile of text: its sources, their documents and bytes, by a sample of each."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feldspar.begin.fields import Fields, choose_fields
from feldspar.begin.formats import Finding, Search, search
from feldspar.begin.held_out import LEAST
from feldspar.begin.sample import WHOLE_FILES, cut, read_sample, sniffed_records
from feldspar.core.progress import progress
from feldspar.corpus.document import Document
from feldspar.recipe.sections.corpus import SourceSettings

SHORT_CHARACTERS = 200
"""Documents that a recipe removes by default because they are shorter."""


@dataclass(frozen=True)
class Source:
    """One source of the recipe, and what a sample of it shows."""

    name: str
    finding: Finding
    settings: SourceSettings
    fields: Fields | None
    files: int
    documents: int
    """Documents, parts of cut files included; an estimate where only a part was read."""
    text_bytes: int
    """UTF-8 bytes of their text."""
    exact: bool
    """True if everything was read."""
    short_share: float
    """Share of the documents with fewer than ``SHORT_CHARACTERS`` characters."""
    copied_share: float
    """Share of the text in exact copies of other documents of the sample."""
    letters: str
    """Script of most letters."""
    texts: list[str]
    """Texts of the sample."""

    @property
    def documents_text(self) -> str:
        """Return the number of documents, and whether it is an estimate."""
        known = self.exact or self.documents == self.files
        return f"{'' if known else 'about '}{self.documents:,}"

    @property
    def mean_bytes(self) -> float:
        """Return the mean length of a document's text in bytes."""
        return self.text_bytes / max(self.documents, 1)

    def record(self) -> dict[str, Any]:
        """Return what was found as plain values."""
        return {
            "path": str(self.finding.path),
            "format": self.finding.format,
            "text_field": None if self.fields is None else self.fields.text,
            "files": self.files,
            "documents": self.documents,
            "text_bytes": self.text_bytes,
            "exact": self.exact,
        }


@dataclass(frozen=True)
class Pile:
    """All sources, and the files that no reader takes."""

    sources: list[Source]
    search: Search

    @property
    def documents(self) -> int:
        """Count the documents of all sources."""
        return sum(source.documents for source in self.sources)

    @property
    def text_bytes(self) -> int:
        """Count the bytes of text of all sources."""
        return sum(source.text_bytes for source in self.sources)

    @property
    def new_bytes(self) -> float:
        """Return the bytes of text without the share that the samples' exact copies have."""
        return sum(source.text_bytes * (1 - source.copied_share) for source in self.sources)

    @property
    def exact(self) -> bool:
        """Tell whether everything was read."""
        return all(source.exact for source in self.sources)

    @property
    def many_short(self) -> bool:
        """Tell whether so many documents are short that removing them would take much away."""
        short = sum(source.short_share * source.documents for source in self.sources)
        return short > 0.1 * self.documents


def measure_pile(paths: Iterable[Path], text_field: str | None = None) -> Pile:
    """Look at ``paths``, find sources and fields, and measure a sample of each source.

    Raises UserError for paths without text, fields that are not clear, and the errors of readers.
    """
    found = search(paths)
    names = _names(found.findings)
    sources = []
    with progress("looking at your files", len(names), "sources") as advance:
        for name, finding in zip(names, found.findings, strict=True):
            sources.append(_measure(name, finding, text_field))
            advance(1)
    return Pile(sources, found)


def _names(findings: Sequence[Finding]) -> list[str]:
    """Return a name for each source: that of its file or folder, safe as a folder's name."""
    stems = []
    for finding in findings:
        place = finding.path.expanduser().resolve()
        stem = place.name.split(".")[0] if place.is_file() else place.name
        stems.append(re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("._-") or "text")
    names: list[str] = []
    for stem, finding in zip(stems, findings, strict=True):
        name = stem if stems.count(stem) == 1 else f"{stem}-{finding.format}"
        number = 2
        while name in names:
            name = f"{stem}-{finding.format}-{number}"
            number += 1
        names.append(name)
    return names


def _measure(name: str, finding: Finding, text_field: str | None) -> Source:
    fields = None
    if finding.format in ("jsonl", "parquet", "huggingface"):
        records = list(sniffed_records(finding))
        fields = choose_fields(records, str(finding.path), text_field)
    sample = read_sample(name, finding, fields)
    if finding.format == "text" and len(sample.finding.files) < LEAST:
        sample = cut(sample)
    finding, documents, factor = sample.finding, sample.documents, sample.factor
    sizes = [len(document.text.encode()) for document in documents]
    # Where no file is cut.
    whole = finding.format in WHOLE_FILES and len(documents) <= len(finding.files)
    return Source(
        name=name,
        finding=finding,
        settings=sample.settings,
        fields=fields,
        files=len(finding.files),
        documents=len(finding.files) if whole else round(len(documents) * factor),
        text_bytes=round(sum(sizes) * factor),
        exact=factor < 1.0001,
        short_share=_share(len(each.text) < SHORT_CHARACTERS for each in documents),
        copied_share=_copied(documents, sizes),
        letters=_letters(documents),
        texts=[document.text for document in documents],
    )


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / max(len(values), 1)


def _copied(documents: Sequence[Document], sizes: Sequence[int]) -> float:
    """Return the share of bytes in documents whose text came before."""
    seen: set[bytes] = set()
    copied = 0
    for document, size in zip(documents, sizes, strict=True):
        digest = hashlib.sha256(document.text.encode()).digest()
        copied += size if digest in seen else 0
        seen.add(digest)
    return copied / max(sum(sizes), 1)


def _letters(documents: Sequence[Document]) -> str:
    """Return the script of most letters in a few beginnings of texts."""
    step = max(1, len(documents) // 200)
    counts = Counter(
        unicodedata.name(letter, "other").split(" ")[0].lower()
        for document in documents[::step]
        for letter in document.text[:500]
        if letter.isalpha()
    )
    return counts.most_common(1)[0][0] if counts else "none"
