"""Read web archives: the texts of WET files, and the pages of WARC files without their markup.

Records are parsed by FastWARC, pages turned into text by Resiliparse.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from feldspar.core.errors import UserError, missing_extra
from feldspar.corpus.document import Document, Documents, Tolerance
from feldspar.corpus.encoding import REPLACEMENT, decode, repaired
from feldspar.corpus.read_progress import bytes_read
from feldspar.corpus.readers.blocks import (
    BLOCK_BYTES,
    LONGEST_LINE_BYTES,
    BlockStream,
    decompressed,
    opened,
)
from feldspar.corpus.readers.listing import files_below
from feldspar.corpus.readers.pieces import Piece, file_piece
from feldspar.recipe.sections.corpus import SourceSettings
from feldspar.recipe.sections.readers import WarcReader

WARC_SUFFIXES = tuple(f".{kind}{end}" for kind in ("warc", "wet") for end in ("", ".gz", ".zst"))
PAGE_TYPES = ("text/html", "application/xhtml+xml")
OK = 200
LONGEST_HEADER_BYTES = 1 << 20
"""A longer line is no part of a record's header."""
UNKNOWN_ENCODING = "unknown encoding"
"""The reason under which pages are counted whose server names an encoding that does not exist."""


def warc_pieces(source: str, settings: SourceSettings) -> Iterator[Piece]:
    """Yield the web archives of a source as pieces."""
    assert settings.path is not None and isinstance(settings.reader, WarcReader)
    for name, path in files_below(settings.path, WARC_SUFFIXES):
        yield file_piece(partial(warc_documents, source, name, path, settings), path)


def warc_documents(
    source: str, name: str, path: Path, settings: SourceSettings, tolerance: Tolerance
) -> Documents:
    """Yield a document for each text of a WET file and each page in a WARC response.

    Its group is its address, so that copies of one page fall on one side of the split. Other
    records (requests, images, redirects) are passed over. Raises UserError with file and offset.
    """
    try:
        from fastwarc.warc import WarcRecordType
    except ImportError as error:
        raise missing_extra("fastwarc", "web") from error
    assert isinstance(settings.reader, WarcReader)
    kinds = WarcRecordType.conversion | WarcRecordType.response
    for record in _read_records(path, source, tolerance):
        if not record.record_type & kinds:
            continue
        origin = f"{name}:{record.stream_pos}"
        try:
            page = _page_of(record, f"{path}:{record.stream_pos}", settings.reader.main_content)
        except UserError as error:
            tolerance.skip(source, error)
            continue
        if page is None:
            continue
        if page.unknown_encoding:
            tolerance.note(source, UNKNOWN_ENCODING)
        yield Document(
            f"{source}/{origin}",
            source,
            page.text,
            record.headers.get("WARC-Target-URI") or origin,
            origin,
            settings.licence,
            replaced=page.replaced,
        )


def _read_records(path: Path, source: str, tolerance: Tolerance) -> Iterator[Any]:
    """Yield the whole records; those that FastWARC does not understand are one bad record."""
    from fastwarc.warc import ArchiveIterator

    whole = _whole_records(path, source, tolerance)
    seen = position = 0
    problem = "FastWARC does not find them"
    try:
        for record in islice(ArchiveIterator(str(path), fsspec_args=False), whole):
            seen += 1
            bytes_read(record.stream_pos - position)
            position = record.stream_pos
            yield record
    except OSError as error:
        problem = str(error)
    if seen < whole:
        what = f"{path}: {whole - seen} of {whole} records cannot be read: {problem}"
        tolerance.skip(source, UserError(what))


def _whole_records(path: Path, source: str, tolerance: Tolerance) -> int:
    """Count the records before the end of the file, or before the first that is cut or damaged.

    FastWARC ends in silence where a file is cut, so the records are walked through first. Damage
    is one bad record. Raises UserError for a file without a record.
    """
    whole = 0
    try:
        with opened(path, counted=False) as file:
            stream = io.BufferedReader(BlockStream(decompressed(file, path)), BLOCK_BYTES)
            for _ in _records(stream):
                whole += 1
    except UserError as error:
        damage = UserError(f"{error.what} (after {whole} whole records)", where=str(path))
        tolerance.skip(source, damage)
    except ValueError as error:
        what = f"{path} is truncated or damaged after {whole} whole records: {error}"
        tolerance.skip(source, UserError(what))
    else:
        if whole == 0:
            raise UserError(f"{path} is no web archive: it holds no record")
    return whole


def _records(stream: io.BufferedIOBase) -> Iterator[None]:
    """Pass over the records one by one. Raises ValueError for one that is cut, or no record."""
    line = stream.readline(LONGEST_HEADER_BYTES)
    while line:
        if not line.startswith(b"WARC/"):
            raise ValueError("no record begins where one should")
        length = None
        while (line := stream.readline(LONGEST_HEADER_BYTES)).strip():
            field, _, value = line.partition(b":")
            if field.strip().lower() == b"content-length":
                length = int(value)
        if not line or length is None:
            raise ValueError("the header of a record is cut")
        while length > 0:
            block = stream.read(min(length, BLOCK_BYTES))
            if not block:
                raise ValueError("a record is cut")
            length -= len(block)
        ends = 0
        while (line := stream.readline(LONGEST_HEADER_BYTES)) and not line.strip():
            ends += line.endswith(b"\n")
        if ends < (1 if line else 2):
            raise ValueError("the end of a record is cut")
        yield


@dataclass(frozen=True)
class Page:
    """The text of a record, its replaced characters, and whether its encoding's name is unknown."""

    text: str
    replaced: int
    unknown_encoding: bool = False


def _page_of(record: Any, place: str, main_content: bool) -> Page | None:
    """Take the text of a record; None where it has none. Raises UserError for a bad record."""
    from fastwarc.warc import WarcRecordType

    if record.content_length > LONGEST_LINE_BYTES:
        raise UserError(f"{place} is longer than {LONGEST_LINE_BYTES >> 20} MiB")
    if record.record_type == WarcRecordType.conversion:
        return Page(*repaired(decode(record.reader.read(), place)))
    if not record.is_http or record.http_headers.status_code != OK:
        return None
    kind = (record.http_content_type or "").lower()
    if kind not in (*PAGE_TYPES, "text/plain"):
        return None
    return _decoded(record.reader.read(), record.http_charset, kind in PAGE_TYPES, main_content)


def _decoded(data: bytes, charset: str | None, markup: bool, main_content: bool) -> Page:
    """Decode a page as browsers do.

    Its encoding is the one that its server names, by the labels of the WHATWG's standard. With none
    or an unknown one it is UTF-8 where the bytes are, or else the encoding that the page names or
    that its bytes look like, or Windows-1252. Bytes that are no text in it are replaced, and
    counted before the markup is taken away.
    """
    try:
        from resiliparse.extract.html2text import extract_plain_text
        from resiliparse.parse.encoding import (
            bytes_to_str,
            detect_encoding,
            map_encoding_to_html5,
        )
    except ImportError as error:
        raise missing_extra("resiliparse", "web") from error
    named = map_encoding_to_html5(charset, fallback_utf8=False) if charset else None
    encoding = named
    if encoding is None:
        encoding = "utf-8" if _is_utf8(data) else detect_encoding(data, from_html_meta=markup)
    replaced = 0
    try:
        text = bytes_to_str(data, encoding, "strict")
    except UnicodeError:
        text = bytes_to_str(data, encoding, "replace")
        replaced = text.count(REPLACEMENT)
    if markup:
        text = extract_plain_text(text, main_content=main_content)
    text, halves = repaired(text)
    return Page(text, replaced + halves, charset is not None and named is None)


def _is_utf8(data: bytes) -> bool:
    """Tell whether bytes beyond ASCII make characters of UTF-8, which no other text does."""
    try:
        return not data.decode("utf-8").isascii()
    except UnicodeDecodeError:
        return False
