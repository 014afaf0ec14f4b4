"""Read a sample of a source by its own reader, evenly over its files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from feldspar.begin.fields import Fields
from feldspar.begin.formats import Finding
from feldspar.core.errors import UserError
from feldspar.corpus.checks import MOST_REPLACED
from feldspar.corpus.document import Document, Tolerance
from feldspar.corpus.parts import DocumentTable, rows_of
from feldspar.corpus.read_progress import metered
from feldspar.corpus.readers.huggingface import arrow_rows, is_saved
from feldspar.corpus.readers.jsonl import jsonl_records
from feldspar.corpus.readers.parquet import PARQUET_SUFFIXES, parquet_records
from feldspar.corpus.readers.pieces import Piece
from feldspar.corpus.readers.sources import pieces_of
from feldspar.corpus.readers.text import parts_of
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
"""Bytes of a source that are read; more where a file is a document, because one that is no text
would be refused later."""
PIECE_SAMPLE_BYTES = 4_000_000
"""Bytes of text that are read of one large file."""
SNIFFED_FILES, SNIFFED_RECORDS = 8, 50
"""Files and records of each file in which fields are sought."""
WHOLE_FILES = ("text", "code")
"""Formats of which each file is a document."""
PARTS, PART_CHARACTERS = 100, (2_000, 100_000)
"""Documents that long files of text are cut into, and the least and most characters of one."""
MOST_LEFT_OUT = 20
"""Files that are left out because they are no UTF-8 text; more are refused."""


@dataclass(frozen=True)
class Sample:
    """Documents of a source, and how much of it they are."""

    finding: Finding
    """The finding without files that are no UTF-8 text."""
    settings: SourceSettings
    documents: list[Document]
    factor: float
    """The size of the source over that of the sample."""


def sniffed_records(finding: Finding) -> Iterator[Mapping[str, Any]]:
    """Yield records of files that lie evenly over the finding."""
    step = max(1, len(finding.files) // SNIFFED_FILES)
    for name, path in finding.files[::step]:
        rows: Iterator[Mapping[str, Any]]
        if is_saved(finding.path):
            rows = arrow_rows(path)
        elif name.endswith(PARQUET_SUFFIXES):
            rows = (record for _, record in parquet_records(name, path))
        else:
            rows = (record for _, record in jsonl_records(name, path, name, Tolerance()))
        yield from islice(rows, SNIFFED_RECORDS)


def read_sample(name: str, finding: Finding, fields: Fields | None) -> Sample:
    """Read a sample of a source. Raises UserError where it holds no text, and errors of readers.

    Of text and code, files that are no UTF-8 text are left out of the finding.
    """
    pieces = list(pieces_of(name, _settings(finding, fields)))
    whole = finding.format in WHOLE_FILES
    total = sum(piece.bytes for piece in pieces)
    step = max(1, round(total / (WHOLE_SAMPLE_BYTES if whole else SAMPLE_BYTES)))
    documents: list[Document] = []
    bad: dict[str, str] = {}
    read = 0.0
    for number in range(0, len(pieces), step):
        piece = pieces[number]
        if not whole:
            own, share = _read(piece)
            documents, read = documents + own, read + share * piece.bytes
            continue
        file, _ = finding.files[number]
        document, fault = _whole_file(piece, file)
        if document is None:
            bad[file] = fault
            total -= piece.bytes
        else:
            documents.append(document)
            read += piece.bytes
    if bad:
        finding = _without(finding, bad, bool(documents))
    _check(finding, documents)
    factor = total / read if read else 1.0
    return Sample(finding, _settings(finding, fields), documents, factor)


def cut(sample: Sample) -> Sample:
    """Cut the files of a text source into documents, so that a part of them can be held out."""
    reader = sample.settings.reader
    assert isinstance(reader, TextReader)
    least, most = PART_CHARACTERS
    characters = sum(len(document.text) for document in sample.documents)
    size = min(max(characters // PARTS, least), most)
    if all(len(document.text) <= size for document in sample.documents):
        return sample
    settings = sample.settings.model_copy(
        update={"reader": reader.model_copy(update={"document_characters": size})}
    )
    parts = [
        replace(document, text=text)
        for document in sample.documents
        for text in parts_of(document.text, size)
    ]
    return replace(sample, settings=settings, documents=parts)


def _whole_file(piece: Piece, file: str) -> tuple[Document | None, str]:
    """Return the document of a file; or none and the reason why the file is no text."""
    try:
        (document,) = _documents(piece)
    except UserError as error:
        return None, error.what
    if document.replaced * MOST_REPLACED > len(document.text):
        return None, f"{file} is not UTF-8"
    if "\0" in document.text:
        return None, f"{file} is no text: it holds bytes that are zero"
    return document, ""


def _without(finding: Finding, bad: Mapping[str, str], others: bool) -> Finding:
    """Leave out files that are no text. Raises UserError where they are many, or all."""
    if len(bad) > MOST_LEFT_OUT or not others:
        raise UserError(
            f"{finding.path}: {len(bad)} of its files are no UTF-8 text",
            found=next(iter(bad.values())),
            do="convert them to UTF-8, as by iconv -f CP1252 -t UTF-8, or move them away",
        )
    files = [pair for pair in finding.files if pair[0] not in bad]
    exclude = (*finding.exclude, *bad)
    return replace(finding, files=files, exclude=exclude, bad=tuple(bad.values()))


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
            if not consumed and held > 2 * PIECE_SAMPLE_BYTES:  # Arrow's rows are not counted
                return documents, min(1.0, held / piece.bytes)
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
