"""The parts between reading and writing: files of documents, addressed by document key.

A document's key is its place in the order of reading: sources as given, then files, then rows.
Parts are Arrow files without compression: a text is read from where it lies, without the others.
"""

import os
import shutil
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from feldspar.corpus.columns import DOCUMENT_COLUMNS, arrow, text_sizes
from feldspar.corpus.document import Document
from feldspar.corpus.packed import PackedTexts

PART_BYTES = 4 << 20
_GATHERED_CHARACTERS = 1 << 20
PART_NAME = "documents.arrow"
_COLUMNS = (*DOCUMENT_COLUMNS, "licence", "quality", "replaced")


@dataclass(frozen=True)
class PartFiles:
    """Part files in order; ``starts`` holds the first key of each, and the number of all."""

    paths: Sequence[Path]
    starts: tuple[int, ...]

    @property
    def documents(self) -> int:
        """The number of documents in all parts."""
        return self.starts[-1]

    def values(self, column: str, keys: Sequence[int]) -> Iterator[Any]:
        """The values of a column for ``keys``; quick where keys near each other lie together."""
        part, values, start, end = -1, None, 0, 0
        for key in keys:
            if not start <= key < end:
                part = bisect_right(self.starts, key) - 1
                values = part_table(self.paths[part]).column(column)
                start, end = self.starts[part], self.starts[part + 1]
            assert values is not None
            yield values[key - start].as_py()

    def texts(self, keys: Sequence[int]) -> Iterator[tuple[int, str]]:
        """Key and text of each of ``keys``."""
        return zip(keys, self.values("text", keys), strict=True)

    def strings(self, column: str, keys: np.ndarray) -> list[str]:
        """The values of a column for keys in any order, parts opened once each."""
        distinct, places = np.unique(keys, return_inverse=True)
        found = list(self.values(column, distinct.tolist()))
        return [found[place] for place in places.tolist()]

    def column(self, column: str) -> Iterator[Any]:
        """The values of a column of all documents, a part in memory at a time."""
        for path in self.paths:
            yield from part_table(path).column(column).to_pylist()


@dataclass(frozen=True)
class DocumentTable:
    """Documents as an Arrow table of ``part_schema``."""

    table: Any


def stage_parts(documents: Iterable[Document | DocumentTable], folder: Path) -> Iterator[Path]:
    """Write documents into part files below ``folder``, each yielded once it is whole.

    The cuts depend on the texts only.
    """
    pieces: list[Any] = []
    size = number = 0
    for table in _tables(documents):
        ends, start, begin = np.cumsum(text_sizes(table.column("text"))), 0, 0
        while (end := int(np.searchsorted(ends, begin + PART_BYTES - size)) + 1) <= len(ends):
            pieces.append(table.slice(start, end - start))
            yield _write_part(pieces, folder / f"{number:06d}")
            pieces, size, number = [], 0, number + 1
            start, begin = end, int(ends[end - 1])
        if start < len(ends):
            pieces.append(table.slice(start))
            size += int(ends[-1]) - begin
    if pieces:
        yield _write_part(pieces, folder / f"{number:06d}")


def _tables(documents: Iterable[Document | DocumentTable]) -> Iterator[Any]:
    """Tables of documents in order, those that come one by one a few at a time."""
    batch: list[Document] = []
    size = 0
    for each in documents:
        if isinstance(each, Document):
            batch.append(each)
            size += len(each.text)
            if size < _GATHERED_CHARACTERS:
                continue
        if batch:
            yield table_of(batch)
            batch, size = [], 0
        if isinstance(each, DocumentTable):
            yield each.table
    if batch:
        yield table_of(batch)


def table_of(documents: Sequence[Document]) -> Any:
    """A table of documents with all fields."""
    pyarrow, _ = arrow()
    columns = [[getattr(row, name) for row in documents] for name in _COLUMNS]
    return pyarrow.table(columns, schema=part_schema())


def part_schema() -> Any:
    """The columns of a part."""
    pyarrow, _ = arrow()
    kinds = {"quality": pyarrow.float64(), "replaced": pyarrow.uint32()}
    return pyarrow.schema([(name, kinds.get(name, pyarrow.large_string())) for name in _COLUMNS])


def _write_part(pieces: Sequence[Any], folder: Path) -> Path:
    pyarrow, _ = arrow()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PART_NAME
    # Renamed into place: a worker of a run that was killed may still read the part of that name.
    new = path.with_suffix(".new")
    write_table(pyarrow.concat_tables(pieces).combine_chunks(), new)
    return new.replace(path)


def write_table(table: Any, path: Path) -> None:
    """The part file of a table."""
    pyarrow, _ = arrow()
    with (
        pyarrow.OSFile(str(path), "wb") as file,
        pyarrow.ipc.new_file(file, table.schema) as writer,
    ):
        writer.write_table(table)


def same_file(path: Path, other: Path) -> None:
    """Let ``other`` be ``path``, which is never written again; a copy where links are unknown."""
    try:
        os.link(path, other)
    except OSError:
        shutil.copyfile(path, other)


def part_table(path: Path) -> Any:
    """The part as an Arrow table that lies in the file, not in memory."""
    pyarrow, _ = arrow()
    return pyarrow.ipc.open_file(pyarrow.memory_map(str(path))).read_all()


def packed_column(table: Any, name: str) -> PackedTexts:
    """A column of a part's table without nulls, where it lies."""
    pyarrow, _ = arrow()
    (chunk,) = table.column(name).chunks
    _, starts, data = chunk.buffers()
    offsets = np.frombuffer(starts, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
    empty = pyarrow.py_buffer(b"")
    return PackedTexts(np.frombuffer(data or empty, np.uint8), offsets)


def text_begins(path: Path) -> np.ndarray:
    """Where in a part file each text begins, in bytes (i64)."""
    pyarrow, _ = arrow()
    with pyarrow.memory_map(str(path)) as file:
        first = file.read_buffer(1).address
        file.seek(0)
        (chunk,) = pyarrow.ipc.open_file(file).read_all().column("text").chunks
        _, starts, data = chunk.buffers()
        offset = data.address - first if data else 0  # without a buffer all texts are empty
        return np.frombuffer(starts, np.int64)[: len(chunk)] + offset
