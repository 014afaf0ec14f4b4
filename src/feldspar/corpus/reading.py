"""The first stage: read the pieces of all sources in units side by side, and prepare their parts.

A unit holds consecutive pieces, and its documents are cut into parts of its own, so that parts
depend on the inputs only. Documents keep the order of the pieces, whatever process reads them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from feldspar.core.errors import UserError
from feldspar.core.files import digest_of, sha256_of_file
from feldspar.core.manifest import MANIFEST_NAME
from feldspar.corpus.decontaminate import Decontaminator, StoredRuns
from feldspar.corpus.document import Tolerance
from feldspar.corpus.features import (
    Features,
    Preparation,
    joined,
    load_features,
    prepare,
    save_features,
)
from feldspar.corpus.parts import PartFiles, part_folder, part_tables, tables_of, write_index
from feldspar.corpus.readers.pieces import PIECE_BYTES, Piece
from feldspar.corpus.stages import Stages

STAGE = "read"


@dataclass(frozen=True)
class ReadUnit:
    """Pieces to read together; up to ``bad_records`` bad records are left out."""

    pieces: Sequence[Piece]
    preparation: Preparation
    bad_records: int
    evaluation: StoredRuns | None

    @property
    def digest(self) -> str:
        """Hash everything that decides the parts."""
        evaluation = self.evaluation.digest if self.evaluation else ""
        others = repr((self.preparation, self.bad_records))
        return digest_of(evaluation, others, *(piece.digest for piece in self.pieces))

    @property
    def here(self) -> bool:
        """Tell whether only this machine can read the unit."""
        return any(piece.here for piece in self.pieces)


def read_unit(unit: ReadUnit, folder: Path) -> dict[str, Any]:
    """Read pieces and prepare their documents in parts below ``folder``.

    The counts hold the documents of each part, the names of the sources as they appear, what was
    bad and what was left out because it overlaps an evaluation set.
    """
    tolerance = Tolerance(unit.bad_records)
    tables = tables_of(each for piece in unit.pieces for each in piece.read(tolerance))
    overlaps = None
    if unit.evaluation is not None:
        overlaps = unit.evaluation.load().sieve()
        tables = overlaps.clean(tables)
    ranks: dict[str, int] = {}
    parts = []
    for number, table in enumerate(part_tables(tables)):
        place = part_folder(folder, number)
        place.mkdir()
        parts.append(prepare(table, unit.preparation, ranks, place))
    if parts:
        save_features(joined(parts), folder)
    return {
        "documents": [len(part.sources) for part in parts],
        "sources": list(ranks),
        "tolerated": tolerance.to_json(),
        "overlaps": overlaps.left_out if overlaps else {},
    }


def read_units(pieces: Iterable[Piece], like: ReadUnit) -> Iterator[ReadUnit]:
    """Group consecutive pieces into units of about ``PIECE_BYTES``.

    A piece that only this machine can read is never in one unit with pieces that any can read.
    """
    gathered: list[Piece] = []
    size = 0
    for piece in pieces:
        if gathered and (size >= PIECE_BYTES or piece.here != gathered[0].here):
            yield replace(like, pieces=tuple(gathered))
            gathered, size = [], 0
        gathered.append(piece)
        size += piece.bytes
    if gathered:
        yield replace(like, pieces=tuple(gathered))


@dataclass(frozen=True)
class ReadCorpus:
    """All parts, the features of their documents, and the names of the sources by rank."""

    files: PartFiles
    features: Features
    names: list[str]


def read_corpus(
    pieces: Iterable[Piece],
    names: Iterable[str],
    preparation: Preparation,
    tolerance: Tolerance,
    decontaminator: Decontaminator | None,
    stages: Stages,
) -> ReadCorpus:
    """Read all pieces; ``names`` are the first sources, others follow as they appear.

    Bad records are added to ``tolerance``, removed documents to ``decontaminator``. Raises
    UserError where too many records are bad, and where there is no document.
    """
    evaluation = decontaminator.store(stages.work) if decontaminator else None
    like = ReadUnit((), preparation, tolerance.limit, evaluation)
    units = [(unit, unit.digest) for unit in read_units(pieces, like)]
    ranks = {name: rank for rank, name in enumerate(names)}
    folders, features, documents = [], [], []
    here = [unit.here for unit, _ in units]
    sizes = [sum(piece.bytes for piece in unit.pieces) for unit, _ in units]
    for done in stages.run(STAGE, read_unit, units, len(units), here, sizes):
        tolerance.add(done.counts["tolerated"])
        if decontaminator:
            decontaminator.add(done.counts["overlaps"])
        documents.append(done.counts["documents"])
        if documents[-1]:
            folders.append(done.folder)
            own = [ranks.setdefault(name, len(ranks)) for name in done.counts["sources"]]
            features.append(load_features(done.folder, np.array(own, np.int64)))
    if not folders:
        raise UserError("the sources hold no document")
    stages.bind(*(sha256_of_file(folder / MANIFEST_NAME) for folder in folders))
    write_index(stages.work / "parts.npy", documents)
    files = PartFiles(stages.work / STAGE, stages.work / "parts.npy")
    return ReadCorpus(files, joined(features), list(ranks))
