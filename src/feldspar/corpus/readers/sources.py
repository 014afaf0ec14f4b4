"""Read the documents of a source by the reader that its settings name."""

from collections.abc import Iterator

from feldspar.corpus.document import Document, Documents, Tolerance, check_source_name
from feldspar.corpus.parts import rows_of
from feldspar.corpus.readers.huggingface import huggingface_pieces
from feldspar.corpus.readers.installed import installed_pieces
from feldspar.corpus.readers.jsonl import jsonl_pieces
from feldspar.corpus.readers.key_value import key_value_pieces
from feldspar.corpus.readers.package import package_pieces
from feldspar.corpus.readers.parquet import parquet_pieces
from feldspar.corpus.readers.pieces import Piece
from feldspar.corpus.readers.text import code_pieces, text_pieces
from feldspar.corpus.readers.warc import warc_pieces
from feldspar.recipe.sections.corpus import SourceSettings

_RECORDS = {"jsonl": jsonl_pieces, "parquet": parquet_pieces}
_PLAIN = {
    "text": text_pieces,
    "code": code_pieces,
    "installed": installed_pieces,
    "warc": warc_pieces,
    "key_value": key_value_pieces,
}


def pieces_of(
    source: str, settings: SourceSettings, offline: bool = False, quality: str | None = None
) -> Iterator[Piece]:
    """Yield the pieces of one source, in a fixed order, before anything is read.

    ``quality`` names a field of its records. Raises UserError where there is nothing to read.
    """
    check_source_name(source)
    if settings.reader.type == "package":
        return package_pieces(source, settings, offline)
    if settings.reader.type == "huggingface":
        return huggingface_pieces(source, settings, quality, offline)
    if settings.reader.type in _RECORDS:
        return _RECORDS[settings.reader.type](source, settings, quality)
    return _PLAIN[settings.reader.type](source, settings)


def read_source(
    source: str, settings: SourceSettings, tolerance: Tolerance, offline: bool = False
) -> Documents:
    """Yield the documents of one source, in a fixed order.

    Raises UserError that names file and line where something is bad beyond ``tolerance``.
    """
    for piece in pieces_of(source, settings, offline):
        for each in piece.read(tolerance):
            yield from [each] if isinstance(each, Document) else rows_of(each)
