"""A tree of source code, one document a file."""

from collections.abc import Iterator

from feldspar.corpus.readers.pieces import Piece
from feldspar.corpus.readers.text import whole_files
from feldspar.recipe.sections.corpus import CodeReader, SourceSettings


def code_pieces(source: str, settings: SourceSettings) -> Iterator[Piece]:
    """The files of a tree of source code."""
    reader = settings.reader
    assert isinstance(reader, CodeReader)
    return whole_files(source, settings, reader.suffixes, reader.exclude)
