"""Documents as columns of Parquet: fixed row groups, no times, hence the same bytes every time."""

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np

from feldspar.core.errors import missing_extra
from feldspar.corpus.document import Document

ROW_GROUP_BYTES = 4 << 20
"""Text of one row group; a longer document has a row group of its own."""
FILE_BYTES = 256 << 20
"""Text of one file."""
DOCUMENT_COLUMNS = ("id", "source", "text", "group", "origin")


def arrow() -> tuple[Any, ModuleType]:
    """Import pyarrow and pyarrow.parquet. Raises SetupError where they are not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "data") from error
    return pyarrow, parquet


@contextmanager
def frugal_memory() -> Generator[None]:
    """Let Arrow free memory in the block as soon as it is unused; its own pools keep it.

    A pool that ARROW_DEFAULT_MEMORY_POOL names stays.
    """
    pyarrow, _ = arrow()
    before = pyarrow.default_memory_pool()
    if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ:
        pyarrow.set_memory_pool(pyarrow.system_memory_pool())
    try:
        yield
    finally:
        pyarrow.default_memory_pool().release_unused()
        pyarrow.set_memory_pool(before)


def column_of(values: np.ndarray, known: np.ndarray | None = None) -> Any:
    """Return an Arrow array of numbers or booleans; where ``known`` (mask) is off it is null.

    ``pyarrow.array`` of anything imports pandas where it is installed, for half a second.
    """
    pyarrow, _ = arrow()
    kind = pyarrow.from_numpy_dtype(values.dtype)
    data = np.packbits(values, bitorder="little") if values.dtype == bool else values
    buffers = [None if known is None else np.packbits(known, bitorder="little"), data]
    packed = [None if each is None else pyarrow.py_buffer(each) for each in buffers]
    return pyarrow.Array.from_buffers(kind, len(values), packed)


def text_scalar(text: str) -> Any:
    """Return an Arrow scalar; ``pyarrow.scalar`` would import pandas too."""
    pyarrow, _ = arrow()
    data = text.encode()
    offsets = np.array([0, len(data)], np.int32)
    buffers = [None, pyarrow.py_buffer(offsets), pyarrow.py_buffer(data)]
    return pyarrow.Array.from_buffers(pyarrow.string(), 1, buffers)[0]


def numbers_of(column: Any) -> np.ndarray:
    """Return the integers or doubles of an Arrow array or chunked array, NaN where they are null.

    ``to_numpy`` imports pandas where it is installed, for a fifth of a second.
    """
    chunks = getattr(column, "chunks", [column])
    empty = np.empty(0, str(column.type))
    return np.concatenate([empty, *map(_numbers, chunks)])


def _numbers(chunk: Any) -> np.ndarray:
    known, data = chunk.buffers()
    rows = slice(chunk.offset, chunk.offset + len(chunk))
    values = np.frombuffer(data or b"", str(chunk.type))[rows]
    if not chunk.null_count:
        return values
    return np.where(
        np.unpackbits(np.frombuffer(known, np.uint8), bitorder="little")[rows], values, np.nan
    )


def text_sizes(column: Any) -> np.ndarray:
    """Count the UTF-8 bytes of each text of a column."""
    from pyarrow import compute

    return numbers_of(compute.call_function("binary_length", [column]))


def text_characters(column: Any) -> np.ndarray:
    """Count the code points of each text of a column (u32)."""
    from pyarrow import compute

    return numbers_of(compute.call_function("utf8_length", [column])).astype(np.uint32)


def read_documents(path: Path) -> Iterator[Document]:
    """Yield the documents of one file, with one row group in memory at a time."""
    _, parquet = arrow()
    with parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            rows = zip(*(table.column(name).to_pylist() for name in names), strict=True)
            for row in rows:
                yield Document(**dict(zip(names, row, strict=True)))


class TableFile:
    """A Parquet file of columns of text and one of numbers, written block by block.

    Row groups have the same number of rows whatever the blocks, hence the same bytes.
    """

    def __init__(self, path: Path, texts: Sequence[str], number: str) -> None:
        pyarrow, parquet = arrow()
        kinds = [(name, pyarrow.string()) for name in texts]
        self._schema = pyarrow.schema([*kinds, (number, pyarrow.float64())])
        self._writer = parquet.ParquetWriter(
            path, self._schema, compression="zstd", write_statistics=False
        )
        self._empty = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._empty:
            self.write([[] for _ in self._schema][1:], np.empty(0))
        self._writer.close()

    def write(self, texts: Sequence[Any], numbers: np.ndarray) -> None:
        """Add rows, given as columns; each block but the last is a whole number of row groups.

        Numbers that are not known (NaN) become null.
        """
        pyarrow, _ = arrow()
        self._empty = False
        numbers = column_of(numbers, ~np.isnan(numbers))
        table = pyarrow.table([*texts, numbers], self._schema.names).cast(self._schema)
        self._writer.write_table(table, row_group_size=1 << 17)
