"""The last stage: write the kept documents as Parquet files, side by side.

Row groups and files are cut by the sizes of the texts, so that the same documents give the same
bytes, whatever process writes them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from feldspar.corpus.columns import DOCUMENT_COLUMNS, FILE_BYTES, ROW_GROUP_BYTES, arrow
from feldspar.corpus.outcome import Outcome
from feldspar.corpus.parts import PartFiles, same_file
from feldspar.corpus.stages import Stages

STAGE = "write"
_NAME = "documents.parquet"


@dataclass(frozen=True)
class WriteUnit:
    """One file: the documents ``keys[groups[0] : groups[-1]]``, in row groups between the bounds.

    ``keys`` is a file of the keys of all kept documents.
    """

    files: PartFiles
    keys: Path
    groups: tuple[int, ...]


def write_kept(outcome: Outcome, folder_of: Mapping[tuple[str, str], Path], stages: Stages) -> None:
    """Write the kept documents, in order; ``folder_of`` maps split and source to a folder."""
    places = list(dict.fromkeys(folder_of.values()))
    splits = {split: number for number, split in enumerate({split for split, _ in folder_of})}
    ranks = np.zeros((len(splits), len(outcome.names)), np.int64)
    for (split, source), folder in folder_of.items():
        ranks[splits[split], outcome.names.index(source)] = places.index(folder)
    kept = np.flatnonzero(outcome.kept)
    sides = np.fromiter(map(splits.__getitem__, outcome.splits), np.int8, len(outcome.splits))
    own = ranks[sides[kept], outcome.sources[kept]]
    order = np.argsort(own, kind="stable")
    keys, sizes = kept[order], outcome.features.sizes[kept[order]]
    bounds = np.searchsorted(own[order], np.arange(len(places) + 1))
    np.save(stages.work / "kept.npy", keys)
    targets, units = [], []
    for folder, start, end in zip(places, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        for number, groups in enumerate(_files(sizes[start:end])):
            targets.append(folder / f"part-{number:05d}.parquet")
            shifted = tuple(start + bound for bound in groups)
            units.append(WriteUnit(outcome.files, stages.work / "kept.npy", shifted))
    named = [(unit, repr(unit.groups)) for unit in units]
    for target, done in zip(
        targets, stages.run(STAGE, write_documents, named, len(named)), strict=True
    ):
        target.parent.mkdir(parents=True, exist_ok=True)
        same_file(done.folder / _NAME, target)


def _files(sizes: np.ndarray) -> Iterator[tuple[int, ...]]:
    """Yield the bounds of the row groups of each file, for texts of these sizes."""
    groups = _bounds(sizes, ROW_GROUP_BYTES)
    of_groups = np.diff(np.concatenate([[0], np.cumsum(sizes)])[groups])
    files = _bounds(of_groups, FILE_BYTES)
    for first, last in pairwise(files):
        yield tuple(groups[first : last + 1])


def _bounds(sizes: np.ndarray, limit: int) -> list[int]:
    """Return 0 and the ends of stretches of at most ``limit``; a larger text stands alone."""
    ends = np.cumsum(sizes)
    bounds, before = [0], 0
    while bounds[-1] < len(sizes):
        fitting = int(np.searchsorted(ends, before + limit, "right"))
        bounds.append(max(bounds[-1] + 1, fitting))
        before = int(ends[bounds[-1] - 1])
    return bounds


def write_documents(unit: WriteUnit, folder: Path) -> dict[str, Any]:
    """Write one file of documents."""
    _, parquet = arrow()
    keys = np.load(unit.keys, mmap_mode="r")
    writer = None
    for start, end in pairwise(unit.groups):
        table = unit.files.take(DOCUMENT_COLUMNS, np.array(keys[start:end])).combine_chunks()
        if writer is None:
            writer = parquet.ParquetWriter(
                folder / _NAME,
                table.schema,
                compression="zstd",
                use_dictionary=["source"],
                write_statistics=False,
            )
        writer.write_table(table, row_group_size=len(table))
    assert writer is not None, "a file holds a document"
    writer.close()
    return {"documents": unit.groups[-1] - unit.groups[0]}
