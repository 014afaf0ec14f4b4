"""Parts: the files of documents between reading and writing, addressed by document key.

A document's key is its place in the order of reading: sources as given, then files, then rows.
Parts are Arrow files without compression, so that one text can be read without the others.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from feldspar.corpus.columns import DOCUMENT_COLUMNS, arrow, column_of, text_sizes
from feldspar.corpus.document import Document
from feldspar.corpus.packed import PackedTexts
from feldspar.corpus.stages import unit_folder

PART_BYTES = 4 << 20
_GATHERED_CHARACTERS = 1 << 20
PART_NAME = "documents.arrow"
_COLUMNS = (*DOCUMENT_COLUMNS, "licence", "quality", "replaced")


@dataclass(frozen=True)
class PartFiles:
    """Part files in order of key: those of the first unit that read, then those of the next.

    ``index`` is the file that ``write_index`` wrote. Units that read all parts carry this object;
    a list of the paths for a terabyte of text would take seconds to pickle with each unit.
    """

    stage: Path
    index: Path

    @cached_property
    def starts(self) -> np.ndarray:
        """The first key of each part, and the number of all documents."""
        return self._rows[2]

    @cached_property
    def _rows(self) -> np.ndarray:
        return np.load(self.index)

    def __getstate__(self) -> dict[str, Any]:
        return {"stage": self.stage, "index": self.index}

    def __len__(self) -> int:
        return len(self.starts) - 1

    def path(self, part: int, name: str = PART_NAME) -> Path:
        """Return the path of a part's file."""
        unit, number = self._rows[:2, part].tolist()
        return part_folder(unit_folder(self.stage, unit), number) / name

    @property
    def documents(self) -> int:
        """The number of documents in all parts."""
        return int(self.starts[-1])

    def tables(self) -> Iterator[tuple[int, Any]]:
        """Yield each part's first key and table, one in memory at a time."""
        for part in range(len(self)):
            yield int(self.starts[part]), part_table(self.path(part))

    def take(self, columns: Sequence[str], keys: np.ndarray) -> Any:
        """Read columns of the documents of ``keys``, in their order; each part is opened once."""
        pyarrow, _ = arrow()
        distinct, places = np.unique(keys, return_inverse=True)
        borders = np.searchsorted(distinct, self.starts)
        pieces = [
            part_table(self.path(part))
            .select(columns)
            .take(column_of(distinct[borders[part] : borders[part + 1]] - self.starts[part]))
            for part in np.flatnonzero(borders[1:] > borders[:-1]).tolist()
        ]
        table = pyarrow.concat_tables(pieces or [part_schema().empty_table().select(columns)])
        return table if np.array_equal(distinct, keys) else table.take(column_of(places))

    def strings(self, column: str, keys: np.ndarray) -> list[str]:
        """Read the values of a column for keys in any order."""
        return self.take([column], keys).column(0).to_pylist()

    def column(self, column: str) -> Iterator[Any]:
        """Yield the values of a column of all documents, with one part in memory at a time."""
        for _, table in self.tables():
            yield from table.column(column).to_pylist()


def part_folder(unit: Path, number: int) -> Path:
    """Return the folder of a part within its unit's folder."""
    return unit / f"{number:05d}"


def write_index(path: Path, documents: Sequence[Sequence[int]]) -> None:
    """Write the index of parts; ``documents[i]`` counts the documents of each part of unit i."""
    rows = [(unit, number) for unit, own in enumerate(documents) for number in range(len(own))]
    counts = [count for own in documents for count in own]
    places = np.array([*rows, (len(documents), 0)], np.int64).T
    np.save(path, np.concatenate([places, np.cumsum([[0, *counts]], axis=1)]))


@dataclass(frozen=True)
class DocumentTable:
    """Documents as an Arrow table of ``part_schema``."""

    table: Any


def rows_of(documents: DocumentTable) -> Iterator[Document]:
    """Yield the documents one by one."""
    for row in documents.table.to_pylist():
        yield Document(**row)


def part_tables(tables: Iterable[Any]) -> Iterator[Any]:
    """Cut tables into parts: tables of about ``PART_BYTES`` of text, of one chunk each.

    The cuts depend on the texts only.
    """
    pieces: list[Any] = []
    size = 0
    for table in tables:
        ends, start, begin = np.cumsum(text_sizes(table.column("text"))), 0, 0
        while (end := int(np.searchsorted(ends, begin + PART_BYTES - size)) + 1) <= len(ends):
            yield _joined([*pieces, table.slice(start, end - start)])
            pieces, size = [], 0
            start, begin = end, int(ends[end - 1])
        if start < len(ends):
            pieces.append(table.slice(start))
            size += int(ends[-1]) - begin
    if pieces:
        yield _joined(pieces)


def _joined(tables: Sequence[Any]) -> Any:
    pyarrow, _ = arrow()
    return pyarrow.concat_tables(tables).combine_chunks()


def tables_of(documents: Iterable[Document | DocumentTable]) -> Iterator[Any]:
    """Yield tables of documents in order; single documents are gathered first."""
    batch: list[Document] = []
    size = 0
    for each in documents:
        if isinstance(each, Document):
            batch.append(each)
            size += len(each.text)
            if size < _GATHERED_CHARACTERS:
                continue
        if batch:
            yield _table_of(batch)
            batch, size = [], 0
        if isinstance(each, DocumentTable):
            yield each.table
    if batch:
        yield _table_of(batch)


def _table_of(documents: Sequence[Document]) -> Any:
    """Make a table of documents with all fields."""
    pyarrow, _ = arrow()
    columns = [[getattr(row, name) for row in documents] for name in _COLUMNS]
    return pyarrow.table(columns, schema=part_schema())


def part_schema() -> Any:
    """Return the columns of a part."""
    pyarrow, _ = arrow()
    kinds = {"quality": pyarrow.float64(), "replaced": pyarrow.uint32()}
    return pyarrow.schema([(name, kinds.get(name, pyarrow.large_string())) for name in _COLUMNS])


def write_table(table: Any, path: Path) -> None:
    """Write a table as a part file."""
    pyarrow, _ = arrow()
    with (
        pyarrow.OSFile(str(path), "wb") as file,
        pyarrow.ipc.new_file(file, table.schema) as writer,
    ):
        writer.write_table(table)


def same_file(path: Path, other: Path) -> None:
    """Link ``other`` to ``path``, which is never written again; copy where links are unknown."""
    try:
        os.link(path, other)
    except OSError:
        shutil.copyfile(path, other)


def part_table(path: Path) -> Any:
    """Map a part file as an Arrow table, without reading it into memory."""
    pyarrow, _ = arrow()
    return pyarrow.ipc.open_file(pyarrow.memory_map(str(path))).read_all()


def packed_column(table: Any, name: str) -> PackedTexts:
    """Return a column without nulls of a part's table, without a copy."""
    pyarrow, _ = arrow()
    (chunk,) = table.column(name).chunks
    _, starts, data = chunk.buffers()
    offsets = np.frombuffer(starts, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
    empty = pyarrow.py_buffer(b"")
    return PackedTexts(np.frombuffer(data or empty, np.uint8), offsets)


def text_begins(path: Path) -> np.ndarray:
    """Return the byte of a part file at which each text begins (i64)."""
    pyarrow, _ = arrow()
    with pyarrow.memory_map(str(path)) as file:
        first = file.read_buffer(1).address
        file.seek(0)
        (chunk,) = pyarrow.ipc.open_file(file).read_all().column("text").chunks
        _, starts, data = chunk.buffers()
        offset = data.address - first if data else 0  # without a buffer all texts are empty
        return np.frombuffer(starts, np.int64)[: len(chunk)] + offset
