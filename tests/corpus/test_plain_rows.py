"""Parquet read column by column gives what reading record by record gives, faults included."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from feldspar.core.errors import UserError
from feldspar.corpus.columns import numbers_of
from feldspar.corpus.document import Document, Tolerance
from feldspar.corpus.parts import DocumentTable, rows_of
from feldspar.corpus.readers.parquet import parquet_documents, parquet_records
from feldspar.corpus.readers.pieces import Read
from feldspar.corpus.readers.records import Fields, RecordReader, documents_of

READER = RecordReader(Fields(source="source"), "x")


def records(path: Path, tolerance: int = 0) -> list[Document]:
    """Documents by record."""
    rows = parquet_records("x", path, READER.fields)
    return list(documents_of(rows, READER, Tolerance(tolerance)))


def columns(path: Path, tolerance: int = 0) -> Read:
    """Documents by column where that can be."""
    return parquet_documents("x", path, READER, None, Tolerance(tolerance))


def both(path: Path, tolerance: int = 0) -> tuple[list[Document], list[Document], bool]:
    """Documents by record and by column, and whether all came in tables."""
    by_record = records(path, tolerance)
    by_column: list[Document] = []
    only_tables = True
    for each in columns(path, tolerance):
        if isinstance(each, DocumentTable):
            by_column += rows_of(each)
        else:
            by_column.append(each)
            only_tables = False
    return by_record, by_column, only_tables


@pytest.mark.parametrize(
    ("ids", "in_tables"),
    [
        (pa.array([f"d{n}" for n in range(3000)]), True),
        (pa.array([f"d{n}" for n in range(3000)], pa.large_string()), True),
        (pa.array(range(3000), pa.int32()), True),
        (None, True),
        (pa.array(["a", None, *(f"d{n}" for n in range(2998))]), False),
        (pa.array(["a", "", *(f"d{n}" for n in range(2998))]), False),
    ],
)
def test_same_documents(ids: Any, in_tables: bool, tmp_path: Path) -> None:
    columns = {
        "source": ["ab"[n % 2] for n in range(3000)],
        "text": [f"text {n} \u00e9\u4e2d" if n % 3 else "" for n in range(3000)],
        "other": list(range(3000)),
    }
    table = pa.table(columns if ids is None else {"id": ids, **columns})
    parquet.write_table(table, tmp_path / "x.parquet", row_group_size=700)
    by_record, by_column, only_tables = both(tmp_path / "x.parquet")
    assert by_record == by_column
    assert len(by_record) == 3000 and only_tables == in_tables


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@pytest.mark.parametrize("reader", [READER, RecordReader(Fields(), "web", "MIT")])
def test_same_documents_where_ids_are_made(
    kind: Any, reader: RecordReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "READER", reader)
    texts = {"source": pa.array(["a", "b"], kind), "text": pa.array(["x", "y"], kind)}
    parquet.write_table(pa.table(texts), tmp_path / "x.parquet")
    by_record, by_column, only_tables = both(tmp_path / "x.parquet")
    assert by_record == by_column and only_tables


def test_numbers_of_columns_in_any_state() -> None:
    column = pa.chunked_array([pa.array([1.5, None, 3.0]).slice(1), pa.array([None, 2.0])])
    assert np.array_equal(numbers_of(column), [np.nan, 3, np.nan, 2], equal_nan=True)
    assert numbers_of(pa.array([1, 2, 3], pa.int32()).slice(1)).tolist() == [2, 3]
    assert numbers_of(pa.chunked_array([], pa.uint32())).dtype == np.uint32


def test_deduplicating_parquet_imports_no_pandas(tmp_path: Path) -> None:
    texts = [f"text {number} " * 40 for number in range(20)]
    table = pa.table({"source": ["a"] * 40, "text": texts + texts})
    parquet.write_table(table, tmp_path / "x.parquet")
    code = (
        "import sys; from pathlib import Path; "
        "from feldspar.corpus.files import deduplicate_files; "
        "from feldspar.recipe.sections.corpus import DeduplicateSettings; "
        "deduplicate_files([Path(sys.argv[1])], Path(sys.argv[2]), DeduplicateSettings()); "
        "sys.exit('pandas' in sys.modules)"
    )
    paths = [str(tmp_path / "x.parquet"), str(tmp_path / "out")]
    subprocess.run([sys.executable, "-c", code, *paths], check=True)


def test_same_replacements(tmp_path: Path) -> None:
    texts = pa.array([b"good", b"caf\xe9"], pa.binary()).view(pa.string())
    parquet.write_table(pa.table({"source": ["a", "a"], "text": texts}), tmp_path / "x.parquet")
    by_record, by_column, _ = both(tmp_path / "x.parquet")
    assert by_record == by_column
    assert [(each.text, each.replaced) for each in by_column] == [("good", 0), ("caf\ufffd", 1)]


@pytest.mark.parametrize(
    "column",
    [
        {"text": pa.array(["good", None])},
        {"text": pa.array([1, 2])},
        {"source": pa.array(["a", "../b"])},
        {"source": pa.array(["a", None])},
        {"id": pa.array([1.5, 2.5])},
    ],
)
def test_same_faults(column: dict[str, Any], tmp_path: Path) -> None:
    good = {
        "id": pa.array(["1", "2"]),
        "source": pa.array(["a", "a"]),
        "text": pa.array(["x", "y"]),
    }
    parquet.write_table(pa.table(good | column), tmp_path / "x.parquet")
    messages = []
    for read in (records, columns):
        with pytest.raises(UserError) as error:
            list(read(tmp_path / "x.parquet"))
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_bad_rows_are_left_out_alike(tmp_path: Path) -> None:
    texts = [None if n in (5, 2500) else f"text {n}" for n in range(3000)]
    table = pa.table({"source": ["a"] * 3000, "text": pa.array(texts)})
    parquet.write_table(table, tmp_path / "x.parquet")
    by_record, by_column, _ = both(tmp_path / "x.parquet", tolerance=2)
    assert by_record == by_column and len(by_record) == 2998
