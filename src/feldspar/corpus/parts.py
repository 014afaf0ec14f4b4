"""The parts between reading and writing: files of documents, addressed by document key.

A document's key is its place in the order of reading: sources as given, then files, then rows.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from feldspar.corpus.columns import DOCUMENT_COLUMNS, DocumentWriter, arrow
from feldspar.corpus.document import Document

PART_BYTES = 4 << 20
PART_ROW_GROUP_BYTES = 1 << 20
_COLUMNS = (*DOCUMENT_COLUMNS, "licence", "quality")
_ONE_FILE = 1 << 62


@dataclass(frozen=True)
class PartFiles:
    """Part files in order; ``starts`` holds the first key of each, and the number of all."""

    paths: tuple[Path, ...]
    starts: tuple[int, ...]

    @property
    def documents(self) -> int:
        """The number of documents in all parts."""
        return self.starts[-1]

    def texts(self, keys: Sequence[int]) -> Iterator[tuple[int, str]]:
        """Key and text of each of ``keys``, which ascend; reads only the row groups it needs."""
        _, parquet = arrow()
        position = 0
        for path, (start, end) in zip(self.paths, pairwise(self.starts), strict=True):
            if position == len(keys):
                return
            if keys[position] >= end:
                continue
            with parquet.ParquetFile(path) as file:
                first = start
                for group in range(file.num_row_groups):
                    rows = file.metadata.row_group(group).num_rows
                    last = first + rows
                    if position < len(keys) and keys[position] < last:
                        column = file.read_row_group(group, columns=["text"]).column("text")
                        while position < len(keys) and keys[position] < last:
                            yield keys[position], column[keys[position] - first].as_py()
                            position += 1
                    first = last


def stage_parts(documents: Iterable[Document], folder: Path) -> Iterator[Path]:
    """Write documents into part files below ``folder``, each yielded once it is whole.

    The cuts depend on the texts only.
    """
    batch: list[Document] = []
    size = number = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= PART_BYTES:
            yield write_part(batch, folder / f"{number:05d}")
            batch, size, number = [], 0, number + 1
    if batch:
        yield write_part(batch, folder / f"{number:05d}")


def write_part(batch: Iterable[Document], folder: Path) -> Path:
    """One part file: small row groups for random access, no compression, all fields."""
    writer = DocumentWriter(folder, _COLUMNS, _ONE_FILE, PART_ROW_GROUP_BYTES, "none")
    with writer:
        for document in batch:
            writer.write(document)
    return writer.files[0]
