"""Measure a pile of text: read a sample of each source by its own reader, and estimate the rest."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from feldspar.begin.fields import Fields, choose_fields
from feldspar.begin.formats import Finding, Search, search
from feldspar.core.errors import UserError
from feldspar.core.progress import progress
from feldspar.corpus.checks import MOST_REPLACED
from feldspar.corpus.document import Document, Tolerance
from feldspar.corpus.parts import DocumentTable, rows_of
from feldspar.corpus.read_progress import metered
from feldspar.corpus.readers.jsonl import jsonl_records
from feldspar.corpus.readers.parquet import PARQUET_SUFFIXES, parquet_records
from feldspar.corpus.readers.pieces import Piece
from feldspar.corpus.readers.sources import pieces_of
from feldspar.recipe.sections.corpus import SourceSettings
from feldspar.recipe.sections.readers import (
    CodeReader,
    HuggingFaceReader,
    JsonlReader,
    ParquetReader,
    Reader,
    TextReader,
    WarcReader,
)

SAMPLE_BYTES, WHOLE_SAMPLE_BYTES = 16_000_000, 64_000_000
"""Bytes of a source that are read, evenly over its files; more where a file is a document, because
one that is no text would be refused later."""
PIECE_SAMPLE_BYTES = 4_000_000
"""Bytes of text that are read of one large file."""
SNIFFED_FILES, SNIFFED_RECORDS = 8, 50
"""Files and records of each file in which fields are sought."""
WHOLE_FILES = ("text", "code")
"""Formats of which each file is a document."""
MOST_LEFT_OUT = 20
"""Files that are left out because they are no UTF-8 text; more are refused."""
SHORT_CHARACTERS = 200
"""Documents that a recipe removes by default because they are shorter."""

Choose = Callable[[Finding, Sequence[Mapping[str, Any]]], Fields]


@dataclass(frozen=True)
class Source:
    """One source of the recipe, and what a sample of it shows."""

    name: str
    finding: Finding
    settings: SourceSettings
    fields: Fields | None
    files: int
    documents: int
    """Documents; an estimate where only a part was read."""
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
        known = self.exact or self.finding.format in WHOLE_FILES
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
        records = list(_sniffed(finding))
        fields = choose_fields(records, str(finding.path), text_field)
    finding, documents, read = _sample(name, finding, fields)
    settings = _settings(finding, fields)
    total = sum(piece.bytes for piece in pieces_of(name, settings))
    factor = total / read if read else 1.0
    whole = finding.format in WHOLE_FILES
    sizes = [len(document.text.encode()) for document in documents]
    _check(finding, documents)
    return Source(
        name=name,
        finding=finding,
        settings=settings,
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


def _sample(
    name: str, finding: Finding, fields: Fields | None
) -> tuple[Finding, list[Document], float]:
    """Read a sample; return the finding, the documents and the bytes on the disk that were read.

    Of text and code, files that are no UTF-8 text are left out of the finding.
    """
    pieces = list(pieces_of(name, _settings(finding, fields)))
    limit = WHOLE_SAMPLE_BYTES if finding.format in WHOLE_FILES else SAMPLE_BYTES
    step = max(1, round(sum(piece.bytes for piece in pieces) / limit))
    documents: list[Document] = []
    bad: dict[str, str] = {}
    read = 0.0
    for number in range(0, len(pieces), step):
        piece = pieces[number]
        if finding.format not in WHOLE_FILES:
            own, share = _read(piece)
            documents, read = documents + own, read + share * piece.bytes
            continue
        file, _ = finding.files[number]
        try:
            (document,) = _documents(piece)
        except UserError as error:
            bad[file] = error.what
            continue
        if document.replaced * MOST_REPLACED > len(document.text):
            bad[file] = f"{file} is not UTF-8"
        elif "\0" in document.text:
            bad[file] = f"{file} is no text: it holds bytes that are zero"
        else:
            documents.append(document)
            read += piece.bytes
    if not bad:
        return finding, documents, read
    if len(bad) > MOST_LEFT_OUT or not documents:
        raise UserError(
            f"{finding.path}: {len(bad)} of its files are no UTF-8 text",
            found=next(iter(bad.values())),
            do="convert them to UTF-8, as by iconv -f CP1252 -t UTF-8, or move them away",
        )
    files = [pair for pair in finding.files if pair[0] not in bad]
    exclude = (*finding.exclude, *bad)
    return replace(finding, files=files, exclude=exclude, bad=tuple(bad.values())), documents, read


def _settings(finding: Finding, fields: Fields | None) -> SourceSettings:
    """Return the settings of the source; its path is the one that was given."""
    reader: Reader
    if finding.format == "text":
        reader = TextReader(suffixes=finding.suffixes, exclude=finding.exclude)
    elif finding.format == "code":
        reader = CodeReader(suffixes=finding.suffixes, exclude=finding.exclude)
    else:
        reader = {
            "jsonl": JsonlReader(),
            "parquet": ParquetReader(),
            "warc": WarcReader(),
            "huggingface": HuggingFaceReader(),
        }[finding.format]
    if fields is None:
        return SourceSettings(reader=reader, path=finding.path)
    return SourceSettings(
        reader=reader, path=finding.path, text_field=fields.text, id_field=fields.id
    )


def _sniffed(finding: Finding) -> Iterator[Mapping[str, Any]]:
    """Yield records of files that lie evenly over the finding."""
    step = max(1, len(finding.files) // SNIFFED_FILES)
    for name, path in finding.files[::step]:
        if name.endswith(PARQUET_SUFFIXES):
            rows = parquet_records(name, path)
        else:
            rows = jsonl_records(name, path, name, Tolerance())
        yield from (record for _, record in islice(rows, SNIFFED_RECORDS))


def _read(piece: Piece) -> tuple[list[Document], float]:
    """Read a piece, or the beginning of a large one; return documents and the share read.

    Readers decompress block by block, so reading ends where the next block begins.
    """
    documents: list[Document] = []
    held, at_limit = 0, None
    with TemporaryDirectory() as folder, metered(meter := Path(folder) / "meter"):
        for each in piece.read(Tolerance()):
            own = _rows(each)
            documents += own
            held += sum(len(document.text) for document in own)
            if held < PIECE_SAMPLE_BYTES or piece.bytes <= PIECE_SAMPLE_BYTES:
                continue
            consumed = _number_in(meter)
            at_limit = consumed if at_limit is None else at_limit
            if consumed > at_limit:
                return documents, min(1.0, at_limit / piece.bytes)
    return documents, 1.0


def _documents(piece: Piece) -> list[Document]:
    return [document for each in piece.read(Tolerance()) for document in _rows(each)]


def _rows(read: Document | DocumentTable) -> list[Document]:
    return [read] if isinstance(read, Document) else list(rows_of(read))


def _number_in(file: Path) -> int:
    return int(file.read_text(encoding="ascii")) if file.is_file() else 0


def _check(finding: Finding, documents: Sequence[Document]) -> None:
    """Raise UserError where a source holds no text, or too much that is not UTF-8."""
    characters = sum(len(document.text) for document in documents)
    if not any(document.text.strip() for document in documents):
        raise UserError(f"{finding.path}: its {len(documents)} documents hold no text")
    replaced = sum(document.replaced for document in documents)
    if replaced * MOST_REPLACED > characters:
        worst = max(documents, key=lambda document: document.replaced)
        raise UserError(
            f"{finding.path}: {replaced:,} of {characters:,} characters are not UTF-8",
            found=f"most of them in {worst.origin}",
            allowed=f"at most 1 in {MOST_REPLACED:,}",
            do="convert it to UTF-8, for example with iconv -f CP1252 -t UTF-8",
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
    import unicodedata
    from collections import Counter

    step = max(1, len(documents) // 200)
    counts = Counter(
        unicodedata.name(letter, "other").split(" ")[0].lower()
        for document in documents[::step]
        for letter in document.text[:500]
        if letter.isalpha()
    )
    return counts.most_common(1)[0][0] if counts else "none"
