"""Web archives: the texts of WET files, and of pages in WARC files without their markup.

Records are parsed by FastWARC, pages turned into text by Resiliparse.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from feldspar.core.errors import UserError, missing_extra
from feldspar.corpus.document import Document, Documents, Tolerance
from feldspar.corpus.encoding import REPLACEMENT, decode, repaired
from feldspar.corpus.readers.lines import LONGEST_LINE_BYTES
from feldspar.corpus.readers.listing import files_below
from feldspar.corpus.readers.pieces import Piece, file_piece
from feldspar.corpus.settings import SourceSettings, WarcReader

WARC_SUFFIXES = tuple(f".{kind}{end}" for kind in ("warc", "wet") for end in ("", ".gz", ".zst"))
PAGE_TYPES = ("text/html", "application/xhtml+xml")
OK = 200


def warc_pieces(source: str, settings: SourceSettings) -> Iterator[Piece]:
    """The web archives of a source."""
    assert settings.path is not None and isinstance(settings.reader, WarcReader)
    for name, path in files_below(settings.path, WARC_SUFFIXES):
        yield file_piece(partial(warc_documents, source, name, path, settings), path)


def warc_documents(
    source: str, name: str, path: Path, settings: SourceSettings, tolerance: Tolerance
) -> Documents:
    """One document for each text of a WET file and each page that a WARC file answered with.

    Its group is its address, so that copies of one page fall on one side of the split. Other
    records (requests, images, redirects) are passed over. Raises UserError with file and offset.
    """
    try:
        from fastwarc.warc import ArchiveIterator, WarcRecordType
    except ImportError as error:
        raise missing_extra("fastwarc", "web") from error
    assert isinstance(settings.reader, WarcReader)
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty")
    kinds = WarcRecordType.conversion | WarcRecordType.response
    records = 0
    try:
        # Any kind counts as a record: a file without one is no archive.
        for record in ArchiveIterator(str(path), fsspec_args=False):
            records += 1
            if not record.record_type & kinds:
                continue
            place = f"{path}:{record.stream_pos}"
            try:
                found = _text(record, place, settings.reader.main_content)
            except UserError as error:
                tolerance.skip(source, error)
                continue
            if found is not None:
                text, replaced = found
                address = record.headers.get("WARC-Target-URI") or f"{name}:{record.stream_pos}"
                origin = f"{name}:{record.stream_pos}"
                yield Document(
                    f"{source}/{origin}",
                    source,
                    text,
                    address,
                    origin,
                    settings.licence,
                    replaced=replaced,
                )
    except OSError as error:
        raise UserError(f"{path} is truncated or damaged: {error}") from error
    if records == 0:
        raise UserError(f"{path} is no web archive: it holds no record")


def _text(record: Any, place: str, main_content: bool) -> tuple[str, int] | None:
    """The text of a record and its replaced characters; None where it is none.

    Raises UserError for a bad record.
    """
    from fastwarc.warc import WarcRecordType

    if record.content_length > LONGEST_LINE_BYTES:
        raise UserError(f"{place} is longer than {LONGEST_LINE_BYTES >> 20} MiB")
    if record.record_type == WarcRecordType.conversion:
        return repaired(decode(record.reader.read(), place))
    if not record.is_http or record.http_headers.status_code != OK:
        return None
    kind = (record.http_content_type or "").lower()
    if kind not in (*PAGE_TYPES, "text/plain"):
        return None
    return _page(record.reader.read(), record.http_charset, kind in PAGE_TYPES, main_content)


def _page(data: bytes, charset: str | None, markup: bool, main_content: bool) -> tuple[str, int]:
    """The text of a page and how many of its characters could not be decoded.

    A page is of the encoding that it says, or else of the one that its bytes look like; failing
    that, of UTF-8 or Windows-1252. Only what is of none is replaced, and counted before the markup
    is taken away.
    """
    try:
        from resiliparse.extract.html2text import extract_plain_text
        from resiliparse.parse.encoding import bytes_to_str, detect_encoding
    except ImportError as error:
        raise missing_extra("resiliparse", "web") from error
    encoding = charset or detect_encoding(data) or "utf-8"
    replaced = 0
    try:
        text = bytes_to_str(data, encoding, "strict")
    except UnicodeError:
        text = bytes_to_str(data, encoding, "replace")
        replaced = text.count(REPLACEMENT)
    if markup:
        text = extract_plain_text(text, main_content=main_content)
    text, halves = repaired(text)
    return text, replaced + halves
