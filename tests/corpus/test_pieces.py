"""Sources in pieces: together the source as a whole, read by anyone, written in the same bytes."""

import json
import pickle
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from feldspar.core.errors import UserError
from feldspar.core.progress import SilentListener, listening
from feldspar.corpus import reading, writing
from feldspar.corpus.build import build_corpus
from feldspar.corpus.document import Document, Tolerance
from feldspar.corpus.files import deduplicate_files
from feldspar.corpus.parts import rows_of
from feldspar.corpus.readers import jsonl as jsonl_reader
from feldspar.corpus.readers import parquet as parquet_reader
from feldspar.corpus.readers.pieces import Piece
from feldspar.corpus.readers.records import Fields, RecordReader
from feldspar.corpus.readers.sources import pieces_of
from feldspar.corpus.reading import ReadUnit, read_units
from feldspar.corpus.stages import TITLES
from feldspar.recipe.sections.corpus import DeduplicateSettings, SourceSettings
from tests.corpus.conftest import corpus_settings, prose
from tests.corpus.test_build import content

READER = RecordReader(Fields(), "s")


def read(pieces: Iterator[Piece] | list[Piece]) -> list[Document]:
    """The documents of pieces that went to another process."""
    found: list[Document] = []
    for piece in pickle.loads(pickle.dumps(list(pieces))):
        for each in piece.read(Tolerance()):
            found += [each] if isinstance(each, Document) else rows_of(each)
    return found


@settings(max_examples=30, deadline=None)
@given(
    lines=st.lists(st.one_of(st.just(""), st.integers(0, 60)), min_size=1, max_size=30),
    size=st.integers(1, 200),
    ended=st.booleans(),
)
def test_ranges_of_lines_are_the_file(
    lines: list[str | int], size: int, ended: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("lines") / "x.jsonl"
    records = ["" if line == "" else json.dumps({"text": "x" * int(line)}) for line in lines]
    path.write_text("\n".join(records) + ("\n" if ended else ""))
    if path.stat().st_size == 0:
        return
    expected = list(jsonl_reader.jsonl_documents("x.jsonl", path, READER, None, Tolerance()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl_reader, "PIECE_BYTES", size)
        pieces = list(jsonl_reader.jsonl_pieces_of("x.jsonl", path, READER))
    assert read(pieces) == expected
    assert sum(piece.bytes for piece in pieces) == path.stat().st_size
    assert [document.origin for document in expected] == [
        f"x.jsonl:{number}" for number, line in enumerate(lines, 1) if line != ""
    ]


@pytest.mark.parametrize("size", [1, 20_000, 10**9])
def test_row_groups_are_the_file(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"text {number} " * (number % 7) + prose(number, 3) for number in range(3_000)]
    parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "x.parquet", row_group_size=170)
    monkeypatch.setattr(parquet_reader, "PIECE_BYTES", size)
    pieces = list(parquet_reader.parquet_pieces_of("x.parquet", tmp_path / "x.parquet", READER))
    assert (len(pieces) == 18) == (size == 1) and (len(pieces) == 1) == (size == 10**9)
    found = read(pieces)
    assert [document.text for document in found] == texts
    assert [document.origin for document in found] == [f"x.parquet:{n}" for n in range(1, 3001)]


def test_a_piece_is_known_by_all_that_decides_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one", "body": "two"}\n')

    def digest(**changes: Any) -> str:
        given = {"reader": "jsonl", "path": tmp_path, **changes}
        (piece,) = pieces_of("s", SourceSettings.model_validate(given))
        return piece.digest

    first = digest()
    assert digest() == first
    assert digest(text_field="body") != first
    path.write_text('{"text": "one", "body": "twos"}\n')
    assert digest() != first


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_file_that_this_machine_does_not_see_is_named(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    if ending == "jsonl":
        path.write_text('{"text": "one"}\n')
    else:
        parquet.write_table(pyarrow.table({"text": ["one"]}), path)
    given = {"reader": ending, "path": tmp_path}
    (piece,) = pieces_of("s", SourceSettings.model_validate(given))
    path.unlink()
    with pytest.raises(UserError, match=str(path)):
        list(piece.read(Tolerance()))


@given(
    sizes=st.lists(st.tuples(st.integers(0, 12 << 20), st.booleans()), max_size=20),
)
def test_units_hold_neighbours_and_none_of_here_with_one_of_anywhere(
    sizes: list[tuple[int, bool]],
) -> None:
    pieces = [Piece(None, size, str(place), here) for place, (size, here) in enumerate(sizes)]  # type: ignore[arg-type]
    units = list(read_units(pieces, ReadUnit((), None, 0, None)))  # type: ignore[arg-type]
    assert [piece for unit in units for piece in unit.pieces] == pieces
    for unit in units:
        assert len({piece.here for piece in unit.pieces}) == 1
        assert sum(piece.bytes for piece in unit.pieces[:-1]) < reading.PIECE_BYTES
    for one, other in pairwise(units):
        enough = sum(piece.bytes for piece in one.pieces) >= reading.PIECE_BYTES
        assert enough or one.here != other.here


def test_bad_records_of_all_units_count_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        lines = ['{"text": 1}', json.dumps({"text": prose(ord(name)), "source": name})]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    sources = {name: {"reader": "jsonl", "path": str(tmp_path / f"{name}.jsonl")} for name in "abc"}
    settings = corpus_settings(tmp_path / "out", sources)

    class Told(SilentListener):
        lines: list[str] = []

        def say(self, line: str) -> None:
            self.lines.append(line)

    monkeypatch.setattr(reading, "PIECE_BYTES", 1)
    with pytest.raises(UserError, match=r"c\.jsonl:1: field 'text' is not text"):
        build_corpus(settings, settings.path, skip_bad=2)
    assert not settings.path.exists()
    with listening(Told()):
        report = build_corpus(settings, settings.path, skip_bad=3)
    assert report.bad_records == {"a": 1, "b": 1, "c": 1}
    left_out = [line for line in Told.lines if line.startswith("left out")]
    assert [line.split(":")[1] for line in left_out] == [" a.jsonl", " b.jsonl", " c.jsonl"]


@given(st.lists(st.integers(0, 30), max_size=4), st.integers(0, 60))
def test_tolerance_added_is_tolerance_in_a_row(counts: list[int], limit: int) -> None:
    def skip(tolerance: Tolerance, unit: int) -> None:
        for number in range(counts[unit]):
            tolerance.skip(f"s{unit % 2}", UserError(f"{unit}.{number}"))

    def together() -> dict[str, int]:
        tolerance = Tolerance(limit)
        for unit in range(len(counts)):
            skip(tolerance, unit)
        return tolerance.skipped

    def apart() -> dict[str, int]:
        total = Tolerance(limit)
        for unit in range(len(counts)):
            own = Tolerance(limit)
            skip(own, unit)
            total.add(json.loads(json.dumps(own.to_json())))
        return total.skipped

    if sum(counts) <= limit:
        assert together() == apart()
        return
    units = []
    for way in (together, apart):
        with pytest.raises(UserError) as error:
            way()
        units.append(error.value.what.split(".")[0])
    assert units[0] == units[1], "the bad record that is named is one of the same unit"


@given(sizes=st.lists(st.integers(0, 40), max_size=60), limit=st.integers(1, 100))
def test_cuts_are_as_full_as_they_may_be(sizes: list[int], limit: int) -> None:
    bounds = writing._bounds(np.array(sizes, np.int64), limit)
    assert bounds[0] == 0 and bounds[-1] == len(sizes) and bounds == sorted(set(bounds))
    for start, end in pairwise(bounds):
        held = sum(sizes[start:end])
        assert held <= limit or end - start == 1
        assert end == len(sizes) or held + sizes[end] > limit


def test_small_cuts_give_the_same_documents_for_any_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"source": "ab"[n % 2], "text": prose(n // 2, 60)} for n in range(120)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = DeduplicateSettings()
    deduplicate_files([tmp_path / "in.jsonl"], tmp_path / "whole", settings)
    whole = parquet.read_table(tmp_path / "whole" / "kept")
    for module, name, value in (
        (writing, "ROW_GROUP_BYTES", 2_000),
        (writing, "FILE_BYTES", 6_000),
        (jsonl_reader, "PIECE_BYTES", 3_000),
        (reading, "PIECE_BYTES", 3_000),
    ):
        monkeypatch.setattr(module, name, value)
    contents = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        deduplicate_files([tmp_path / "in.jsonl"], out, settings, workers=workers)
        contents.append(content(out))
        files = sorted((out / "kept").glob("*.parquet"))
        assert len(files) > 3
        assert all(parquet.read_metadata(file).num_row_groups > 1 for file in files[:-1])
        assert pyarrow.concat_tables(map(parquet.read_table, files)).equals(whole)
    assert contents[0] == contents[1]


def test_what_changed_meanwhile_is_read_again(tmp_path: Path) -> None:
    """A run that was stopped after reading, and an input that is another one then."""
    path, out = tmp_path / "in.jsonl", tmp_path / "out"

    def write(first: int) -> None:
        rows = [{"source": "a", "text": prose(first + n, 60)} for n in range(5)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    class Stop(SilentListener):
        def start(self, title: str, total: float | None, unit: str) -> Any:
            if title == TITLES["bands"]:
                raise KeyboardInterrupt
            return super().start(title, total, unit)

    write(0)
    with listening(Stop()), pytest.raises(KeyboardInterrupt):
        deduplicate_files([path], out, DeduplicateSettings())
    write(100)
    deduplicate_files([path], out, DeduplicateSettings())
    texts = parquet.read_table(out / "kept").column("text").to_pylist()
    assert texts == [prose(100 + n, 60) for n in range(5)]
