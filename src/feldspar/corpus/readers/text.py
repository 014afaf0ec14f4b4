"""Folders of files, one document each: text, or a tree of source code."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from feldspar.core.errors import UserError
from feldspar.corpus.document import Document, Documents, Tolerance
from feldspar.corpus.encoding import decode, repaired
from feldspar.corpus.readers.listing import files_below, matches, read_bytes
from feldspar.corpus.readers.pieces import Piece, file_piece
from feldspar.recipe.sections.corpus import SourceSettings
from feldspar.recipe.sections.readers import CodeReader, TextReader


def text_pieces(source: str, settings: SourceSettings) -> Iterator[Piece]:
    """Yield the files of a text folder."""
    reader = settings.reader
    assert isinstance(reader, TextReader)
    return whole_files(source, settings, reader.suffixes, reader.exclude)


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


def code_pieces(source: str, settings: SourceSettings) -> Iterator[Piece]:
    """Yield the files of a tree of source code."""
    reader = settings.reader
    assert isinstance(reader, CodeReader)
    return whole_files(source, settings, reader.suffixes, reader.exclude)
