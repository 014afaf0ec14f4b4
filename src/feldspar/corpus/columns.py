"""Documents as columns of Parquet: fixed row groups, no times, hence the same bytes every time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from feldspar.core.errors import missing_extra
from feldspar.corpus.document import Document

ROW_GROUP_BYTES = 4 << 20
"""Text of one row group; a longer document has a row group of its own."""
FILE_BYTES = 256 << 20
"""Text of one file."""
DOCUMENT_COLUMNS = ("id", "source", "text", "group", "origin")


def arrow() -> tuple[Any, ModuleType]:
    """The modules pyarrow and pyarrow.parquet. Raises SetupError when they are not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "data") from error
    return pyarrow, parquet


class DocumentWriter:
    """Writes documents into ``part-00000.parquet`` and on, below a folder made on first use."""

    def __init__(
        self,
        folder: Path,
        columns: Sequence[str] = DOCUMENT_COLUMNS,
        file_bytes: int = FILE_BYTES,
        row_group_bytes: int = ROW_GROUP_BYTES,
        compression: str = "zstd",
    ) -> None:
        self._folder = folder
        self._columns = tuple(columns)
        self._file_bytes = file_bytes
        self._row_group_bytes = row_group_bytes
        self._compression = compression
        self._rows: list[Document] = []
        self._row_bytes = 0
        self._written_bytes = 0
        self._writer: Any = None
        self.files: list[Path] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, document: Document) -> None:
        """Add one document."""
        size = len(document.text.encode("utf-8"))
        if self._rows and self._row_bytes + size > self._row_group_bytes:
            self._flush()
        self._rows.append(document)
        self._row_bytes += size

    def close(self) -> None:
        """Write what is left and end the file."""
        self._flush()
        self._end_file()

    def _flush(self) -> None:
        if not self._rows:
            return
        pyarrow, parquet = arrow()
        schema = pyarrow.schema([(name, pyarrow.large_string()) for name in self._columns])
        columns = [[getattr(row, name) for row in self._rows] for name in self._columns]
        table = pyarrow.table(columns, schema=schema)
        if self._writer is not None and self._written_bytes + self._row_bytes > self._file_bytes:
            self._end_file()
        if self._writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"part-{len(self.files):05d}.parquet"
            self._writer = parquet.ParquetWriter(
                path,
                schema,
                compression=self._compression,
                use_dictionary=[name for name in ("source", "licence") if name in self._columns],
                write_statistics=False,
            )
            self.files.append(path)
            self._written_bytes = 0
        self._writer.write_table(table, row_group_size=len(self._rows))
        self._written_bytes += self._row_bytes
        self._rows = []
        self._row_bytes = 0

    def _end_file(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def read_documents(path: Path) -> Iterator[Document]:
    """The documents of one file, a row group in memory at a time."""
    _, parquet = arrow()
    with parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            rows = zip(*(table.column(name).to_pylist() for name in names), strict=True)
            for row in rows:
                yield Document(**dict(zip(names, row, strict=True)))


class TableFile:
    """A Parquet file of two columns of text and one of numbers, written block by block.

    Row groups have the same number of rows whatever the blocks, hence the same bytes.
    """

    def __init__(self, path: Path, texts: tuple[str, str], number: str) -> None:
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
            self.write([[] for _ in self._schema])
        self._writer.close()

    def write(self, columns: list[list[Any]]) -> None:
        """Add rows, given as columns; all blocks but the last are of a whole number of groups."""
        pyarrow, _ = arrow()
        self._empty = False
        table = pyarrow.table(columns, schema=self._schema)
        self._writer.write_table(table, row_group_size=1 << 17)
