"""A tree of source code, one document a file."""

from feldspar.corpus.document import Documents, Tolerance
from feldspar.corpus.readers.text import whole_files
from feldspar.corpus.settings import CodeReader, SourceSettings


def read_code(source: str, settings: SourceSettings, tolerance: Tolerance) -> Documents:
    """The documents of a tree of source code."""
    reader = settings.reader
    assert isinstance(reader, CodeReader)
    return whole_files(source, settings, reader.suffixes, reader.exclude, tolerance)
