"""Folders of files, one document each: text, or a tree of source code.

Long files of text may be cut into several documents.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from feldspar.core.errors import UserError
from feldspar.corpus.document import Document, Documents, Tolerance
from feldspar.corpus.encoding import REPLACEMENT, decode, repaired
from feldspar.corpus.readers.listing import files_below, matches, read_bytes
from feldspar.corpus.readers.pieces import Piece, file_piece
from feldspar.recipe.sections.corpus import SourceSettings
from feldspar.recipe.sections.readers import CodeReader, TextReader


def text_pieces(source: str, settings: SourceSettings) -> Iterator[Piece]:
    """Yield the files of a text folder."""
    reader = settings.reader
    assert isinstance(reader, TextReader)
    for piece in whole_files(source, settings, reader.suffixes, reader.exclude):
        if reader.document_characters is None:
            yield piece
        else:
            yield replace(
                piece, read=partial(cut_file, reader.document_characters, *piece.read.args)
            )


def whole_files(
    source: str, settings: SourceSettings, suffixes: Sequence[str], exclude: Sequence[str]
) -> Iterator[Piece]:
    """Yield a piece for each file; id, group and origin are its path below the source's path."""
    assert settings.path is not None
    for name, path in files_below(settings.path, suffixes):
        if not matches(name, exclude):
            read = partial(whole_file, source, name, name, path, settings.licence)
            yield file_piece(read, path)


def whole_file(
    source: str, name: str, origin: str, path: Path, licence: str | None, tolerance: Tolerance
) -> Documents:
    """Yield the document of one file, or none where a bad file is tolerated."""
    try:
        text, replaced = repaired(decode(read_bytes(path), str(path)))
    except UserError as error:
        tolerance.skip(source, error)
    else:
        yield Document(f"{source}/{name}", source, text, name, origin, licence, replaced=replaced)


def cut_file(
    most: int,
    source: str,
    name: str,
    origin: str,
    path: Path,
    licence: str | None,
    tolerance: Tolerance,
) -> Documents:
    """Yield the document of one file in parts of at most ``most`` characters, with numbers."""
    for document in whole_file(source, name, origin, path, licence, tolerance):
        assert isinstance(document, Document)
        parts = parts_of(document.text, most)
        if len(parts) == 1:
            yield document
            continue
        for number, text in enumerate(parts, 1):
            yield replace(
                document,
                id=f"{document.id}#{number}",
                group=f"{document.group}#{number}",
                origin=f"{document.origin}#{number}",
                text=text,
                replaced=text.count(REPLACEMENT) if document.replaced else 0,
            )


def parts_of(text: str, most: int) -> list[str]:
    """Cut a text into parts of at most ``most`` characters, which together are the text.

    A part ends after the last empty line that it has room for, else after the last line, else after
    the last space, else anywhere.
    """
    parts, begin = [], 0
    while len(text) - begin > most:
        end = _end_of_part(text, begin, begin + most)
        parts.append(text[begin:end])
        begin = end
    return [*parts, text[begin:]]


def _end_of_part(text: str, begin: int, room: int) -> int:
    for mark in ("\n\n", "\n", " "):
        found = text.rfind(mark, begin, room)
        if found >= 0:
            return found + len(mark)
    return room


def code_pieces(source: str, settings: SourceSettings) -> Iterator[Piece]:
    """Yield the files of a tree of source code."""
    reader = settings.reader
    assert isinstance(reader, CodeReader)
    return whole_files(source, settings, reader.suffixes, reader.exclude)
