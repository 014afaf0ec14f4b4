"""Read Hugging Face datasets: saved folders, copies of data repositories, names on the hub.

A folder that ``save_to_disk`` made holds Arrow streams, which pyarrow reads; a copy of a data
repository holds Parquet or JSON lines. Only a name needs the package ``datasets``.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from feldspar.core.errors import UserError, missing_extra
from feldspar.corpus.columns import arrow
from feldspar.corpus.document import Documents, Tolerance
from feldspar.corpus.readers.jsonl import JSONL_SUFFIXES, jsonl_pieces_of
from feldspar.corpus.readers.listing import files_below
from feldspar.corpus.readers.parquet import PARQUET_SUFFIXES, parquet_pieces_of
from feldspar.corpus.readers.pieces import Piece, file_piece
from feldspar.corpus.readers.plain_rows import plain_values
from feldspar.corpus.readers.records import RecordReader, documents_of, fields_of
from feldspar.recipe.sections.corpus import SourceSettings
from feldspar.recipe.sections.readers import HuggingFaceReader

Rows = Iterator[Mapping[str, Any]]
STATE_NAME = "state.json"
SPLITS_NAME = "dataset_dict.json"
HUB_BYTES = 1 << 30
"""What a dataset of the hub is taken for: much, so that it is read beside the others."""
_SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""How file names say which split they belong to, as the hub reads them."""


def huggingface_pieces(
    source: str, settings: SourceSettings, quality: str | None = None, offline: bool = False
) -> Iterator[Piece]:
    """Yield the files of one split of a dataset; a dataset of the hub is one piece.

    Raises UserError for a folder of another form and for a split that it has not; SetupError where
    a name is given and ``datasets`` is not installed.
    """
    reader = settings.reader
    assert isinstance(reader, HuggingFaceReader)
    records = RecordReader(fields_of(settings, quality), source, settings.licence)
    if reader.name is not None:
        # Machines share no cache. After a kill, what was read stands, whatever the hub has then.
        yield Piece(partial(_hub_documents, reader, offline, records), HUB_BYTES, "", here=True)
        return
    assert settings.path is not None
    if is_saved(settings.path):
        for file in saved_files(settings.path, reader.split):
            yield file_piece(partial(_saved_documents, file, records), file)
        return
    for name, file in split_files(settings.path.expanduser().absolute(), reader.split):
        if name.endswith(PARQUET_SUFFIXES):
            yield from parquet_pieces_of(name, file, records)
        else:
            yield from jsonl_pieces_of(name, file, records)


def _hub_documents(
    reader: HuggingFaceReader, offline: bool, records: RecordReader, tolerance: Tolerance
) -> Documents:
    rows = _numbered(f"{reader.name}:{reader.split}", _hub_rows(reader, offline))
    return documents_of(rows, records, tolerance)


def _saved_documents(file: Path, records: RecordReader, tolerance: Tolerance) -> Documents:
    return documents_of(_numbered(file.name, arrow_rows(file)), records, tolerance)


def _numbered(place: str, rows: Rows) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, row in enumerate(rows, start=1):
        yield f"{place}:{number}", row


def split_files(path: Path, split: str) -> list[tuple[str, Path]]:
    """List the files of a split in a copy of a data repository; all files if none names a split.

    Raises UserError when no file belongs to the split.
    """
    files = files_below(path, (*PARQUET_SUFFIXES, *JSONL_SUFFIXES))
    told = {name: _split_told(name) for name, _ in files}
    if not any(told.values()) and split == "train":
        return files
    wanted = next((key for key, words in _SPLIT_WORDS.items() if split in words), split)
    chosen = [(name, file) for name, file in files if told[name] == wanted]
    if not chosen:
        known = sorted({each for each in told.values() if each}) or ["train"]
        raise UserError(f"{path} holds no file of the split {split!r}", allowed=known)
    return chosen


def _split_told(name: str) -> str | None:
    """Return the split that a file's name or folder names, as a word between non-letters."""
    for split, words in _SPLIT_WORDS.items():
        if re.search(rf"(?<![A-Za-z])(?:{'|'.join(words)})(?![A-Za-z])", name):
            return split
    return None


def _split_of(path: Path, split: str) -> Path:
    names = _json(path / SPLITS_NAME).get("splits", [])
    if not isinstance(names, list):
        raise UserError(f"{path / SPLITS_NAME} names no splits", found=names)
    if split not in names:
        raise UserError(f"{path} holds no split {split!r}", allowed=map(str, names))
    return path / split


def is_saved(folder: Path) -> bool:
    """Tell whether ``save_to_disk`` made a folder."""
    folder = folder.expanduser()
    return (folder / SPLITS_NAME).is_file() or (folder / STATE_NAME).is_file()


def saved_files(folder: Path, split: str = "train") -> list[Path]:
    """List the Arrow files of a split in a folder that ``save_to_disk`` made.

    Raises UserError for a split that it has not, and for a damaged folder.
    """
    path = folder.expanduser().absolute()
    if (path / SPLITS_NAME).is_file():
        path = _split_of(path, split)
    try:
        names = [str(item["filename"]) for item in _json(path / STATE_NAME)["_data_files"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path / STATE_NAME} names no data files") from error
    for name in names:
        if Path(name).name != name:
            raise UserError(f"{path / STATE_NAME} names a file outside of its folder", found=name)
    return [path / name for name in names]


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: no JSON object")
    return value


def arrow_rows(path: Path) -> Rows:
    """Yield the rows of an Arrow stream. Raises UserError for a damaged file."""
    pyarrow, _ = arrow()
    try:
        with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as stream:
            for batch in stream:
                yield from plain_values(batch)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is truncated or damaged: {str(error).splitlines()[0]}") from error


def _hub_rows(reader: HuggingFaceReader, offline: bool) -> Rows:
    try:
        import datasets
    except ImportError as error:
        raise missing_extra("datasets", "hub") from error
    if offline and not Path(str(reader.name)).exists():
        raise UserError(
            f"the dataset {reader.name} is read over the network, and downloads are off",
            do="save it to a folder with datasets, and give its path instead of its name",
        )
    try:
        yield from datasets.load_dataset(
            reader.name,
            reader.configuration,
            split=reader.split,
            revision=reader.revision,
            streaming=True,
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise UserError(
            f"the dataset {reader.name} cannot be read: {str(error).splitlines()[0]}"
        ) from error
