"""Readers: from files, archives and this interpreter to documents, in a fixed order."""

from feldspar.corpus.document import Documents, Tolerance, check_source_name
from feldspar.corpus.readers.archives import cache_folder, fetch_archives
from feldspar.corpus.readers.code import read_code
from feldspar.corpus.readers.huggingface import read_huggingface
from feldspar.corpus.readers.installed import read_installed
from feldspar.corpus.readers.jsonl import read_jsonl
from feldspar.corpus.readers.package import read_package
from feldspar.corpus.readers.parquet import read_parquet
from feldspar.corpus.readers.text import read_text
from feldspar.corpus.readers.warc import read_warc
from feldspar.corpus.settings import SourceSettings

__all__ = ["cache_folder", "fetch_archives", "read_source"]

_RECORDS = {"jsonl": read_jsonl, "parquet": read_parquet}
_PLAIN = {
    "text": read_text,
    "code": read_code,
    "installed": read_installed,
    "warc": read_warc,
}


def read_source(
    source: str,
    settings: SourceSettings,
    tolerance: Tolerance,
    offline: bool = False,
    quality: str | None = None,
) -> Documents:
    """The documents of one source, in a fixed order; ``quality`` names a field of its records.

    Raises UserError that names file and line where something is bad beyond ``tolerance``.
    """
    check_source_name(source)
    if settings.reader.type == "package":
        return read_package(source, settings, tolerance, offline)
    if settings.reader.type == "huggingface":
        return read_huggingface(source, settings, tolerance, quality, offline)
    if settings.reader.type in _RECORDS:
        return _RECORDS[settings.reader.type](source, settings, tolerance, quality)
    return _PLAIN[settings.reader.type](source, settings, tolerance)
