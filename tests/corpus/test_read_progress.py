"""Progress of reading in bytes: also inside one compressed file, which is a single unit."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from feldspar.core.progress import SilentListener, listening
from feldspar.corpus.document import Tolerance
from feldspar.corpus.files import deduplicate_files
from feldspar.corpus.read_progress import WRITTEN_BYTES, ReadProgress, metered
from feldspar.corpus.readers.jsonl import jsonl_pieces_of
from feldspar.corpus.readers.records import Fields, RecordReader
from feldspar.corpus.stages import TITLES
from feldspar.recipe.sections.corpus import DeduplicateSettings
from tests.corpus.conftest import prose


def compressed(path: Path) -> Path:
    """A file of which a meter tells several times."""
    lines = (json.dumps({"text": prose(number, 900)}) + "\n" for number in range(600))
    path.write_bytes(gzip.compress("".join(lines).encode()))
    assert path.stat().st_size > 4 * WRITTEN_BYTES
    return path


def test_a_compressed_file_tells_how_far_it_is(tmp_path: Path) -> None:
    path = compressed(tmp_path / "x.jsonl.gz")
    (piece,) = jsonl_pieces_of("x", path, RecordReader(Fields(), "s"))
    meter = tmp_path / "0"
    told = []
    with metered(meter):
        for _ in piece.read(Tolerance()):
            told.append(int(meter.read_text()) if meter.exists() else 0)
    assert told == sorted(told) and len(set(told)) >= 4
    assert told[len(told) // 2] < piece.bytes == path.stat().st_size
    assert piece.bytes - WRITTEN_BYTES < told[-1] <= piece.bytes


def test_finished_and_unfinished_units_add_up(tmp_path: Path) -> None:
    told: list[float] = []
    progress = ReadProgress(tmp_path, [4_000_000, 2_000_000, 1_000_000], told.append)
    progress.look()
    progress.meter(0).write_text("1000000")
    progress.look()
    progress.meter(1).write_text("9000000")  # Parquet may hold more than it is taken for
    progress.look()
    progress.look()
    progress.meter(0).write_text("")  # just being written
    progress.look()
    progress.meter(0).write_text("3000000")
    progress.finish(1)
    progress.finish(0)
    progress.finish(2)
    assert told == [1, 2, 2, 1, 1]


class Told(SilentListener):
    """Adds up the progress of each piece of work."""

    def __init__(self) -> None:
        self.done: dict[str, float] = {}
        self.totals: dict[str, tuple[float | None, str]] = {}

    def start(self, title: str, total: float | None, unit: str) -> Callable[[float], None]:
        self.totals[title] = total, unit
        self.done[title] = 0

        def advance(amount: float) -> None:
            self.done[title] += amount

        return advance


@pytest.mark.parametrize("workers", [1, 2])
def test_reading_is_told_in_bytes_of_the_files(tmp_path: Path, workers: int) -> None:
    size = compressed(tmp_path / "x.jsonl.gz").stat().st_size
    listener = Told()
    with listening(listener):
        deduplicate_files(
            [tmp_path / "x.jsonl.gz"], tmp_path / "out", DeduplicateSettings(), workers=workers
        )
    assert listener.totals[TITLES["read"]] == (size / 1e6, "MB")
    assert listener.done[TITLES["read"]] == pytest.approx(size / 1e6)
    assert listener.totals[TITLES["bands"]][1] == "parts"
