"""The folder of finished documents: where each split and source lies, and reading it again."""

from collections.abc import Iterator
from pathlib import Path

from feldspar.core.artifact import open_artifact
from feldspar.core.errors import UserError, nearest
from feldspar.corpus.columns import read_documents
from feldspar.corpus.document import Document
from feldspar.corpus.split import SPLITS

KIND = "documents"


def split_folder(folder: Path, split: str, source: str) -> Path:
    """The folder of one split's documents of one source."""
    return folder / split / source


def sources(folder: Path) -> list[str]:
    """The sources of a finished folder of documents, in the recipe's order."""
    return list(open_artifact(folder, KIND).manifest.counts["sources"])


def documents(folder: Path, split: str, source: str) -> Iterator[Document]:
    """The kept documents of one split and source, in order; few in memory at a time.

    Licences are counted in the report, not repeated here. Raises UserError for an unknown split or
    source, and when ``folder`` is not a finished folder of documents or holds more than its
    manifest lists; RunError that names a damaged file.
    """
    if split not in SPLITS:
        raise UserError(f"there is no split {split!r}", allowed=SPLITS)
    opened = open_artifact(folder, KIND)
    names = list(opened.manifest.counts["sources"])
    if source not in names:
        hint = nearest(source, names)
        raise UserError(
            f"{folder} holds no source {source!r}" + (f"; did you mean {hint!r}?" if hint else ""),
            allowed=names,
        )
    for name in opened.names(f"{split}/{source}", ".parquet"):
        yield from read_documents(opened.file(name))
