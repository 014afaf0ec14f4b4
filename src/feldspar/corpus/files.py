"""Deduplicate files of records without a recipe (``feldspar corpus dedup``)."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from feldspar import __version__
from feldspar.core.artifact import Wanted
from feldspar.core.engines import Engine, started, workers_of
from feldspar.core.errors import UserError
from feldspar.core.files import digest_of, new_folder, sha256_of_file
from feldspar.corpus.checks import quality_field
from feldspar.corpus.columns import arrow
from feldspar.corpus.document import Tolerance, check_source_name
from feldspar.corpus.pipeline import KEPT_SPLIT, Plan, process, write_pairs
from feldspar.corpus.readers.jsonl import JSONL_SUFFIXES, jsonl_pieces_of
from feldspar.corpus.readers.listing import files_below
from feldspar.corpus.readers.parquet import PARQUET_SUFFIXES, parquet_pieces_of
from feldspar.corpus.readers.pieces import Piece
from feldspar.corpus.readers.records import Fields, RecordReader
from feldspar.corpus.report import Report, make_report
from feldspar.corpus.stages import Stages, work_folder
from feldspar.corpus.store import check_apart, finish_folder, finished_report, settings_digest
from feldspar.corpus.writing import write_kept
from feldspar.recipe.sections.corpus import DeduplicateSettings, ShortFilter

KIND = "deduplication"
WORTH_A_POOL_BYTES = 200_000_000
_SUFFIXES = (*PARQUET_SUFFIXES, *JSONL_SUFFIXES)


def deduplicate_files(
    inputs: Sequence[Path],
    out: Path,
    settings: DeduplicateSettings,
    *,
    text_field: str = "text",
    id_field: str = "id",
    source: str | None = None,
    short: int = 200,
    command: str = "",
    workers: int = 1,
    engine: Engine = "processes",
    skip_bad: int = 0,
    overwrite: bool = False,
) -> Report:
    """Write the documents of ``inputs`` that survive into ``out/kept``, their text unchanged.

    Inputs are Parquet or JSON-lines files, or folders of them. All documents are of ``source``;
    without it each is of the source that its field ``source`` names, or else its file's name
    does. Files are read in the order of their paths, whatever the order given, so that the same
    files give the same bytes. Beside ``kept`` come ``duplicates.parquet``,
    ``edges.parquet``, ``report.json`` and the manifest.

    Raises UserError for bad data, for inputs and output that overlap, and for an existing folder of
    other inputs or settings unless ``overwrite``; SetupError when the engine is missing.
    """
    arrow()
    if source is not None:
        check_source_name(source, "--source")
    fields = Fields(
        text_field,
        id_field,
        source="source" if source is None else None,
        quality=quality_field(settings),
    )
    check_apart(out, inputs)
    files = input_files(inputs)
    tolerance = Tolerance(skip_bad)
    plan = Plan("none", (ShortFilter(characters=short),), settings, None)
    with work_folder(out) as work, started(engine, workers, settings.memory_bytes, work) as pool:
        digests = pool.map(sha256_of_file, [path for _, path in files])
        inputs_digest = digest_of(*chain(*zip((name for name, _ in files), digests, strict=True)))
        parts = settings_digest(settings), str(short), inputs_digest
        wanted = Wanted(KIND, digest_of(*parts, repr((text_field, id_field, source))))
        if (finished := finished_report(out, wanted, overwrite)) is not None:
            return finished
        with new_folder(out, overwrite=True) as folder:
            stages = Stages(work, pool, digest_of(__version__))
            pieces = _pieces(files, fields, source)
            outcome = process(pieces, (), plan, tolerance, stages)
            kept = {(KEPT_SPLIT, name): folder / KEPT_SPLIT for name in outcome.names}
            write_kept(outcome, kept, stages)
            write_pairs(outcome, folder)
            shaping = {"short": short, "text_field": text_field, "id_field": id_field}
            shaping |= {"source": source} | settings.model_dump(mode="json", exclude={"memory"})
            report = make_report(outcome, shaping)
            finish_folder(folder, wanted, command, report)
    return report


def deduplicate_settings(given: Mapping[str, Any]) -> DeduplicateSettings:
    """Return checked settings. Raises UserError that names the first one that is wrong."""
    try:
        return DeduplicateSettings.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        option = "".join(f"--{part}: " for part in first["loc"][:1])
        raise UserError(option + first["msg"], found=first["input"]) from None


def workers_for(inputs: Sequence[Path], engine: Engine, workers: int) -> int:
    """Return the number of workers where 0 means one a core, or one for small inputs.

    A pool takes longer to start than to remove the duplicates of a small corpus.
    """
    if engine == "processes" and workers == 0:
        size = sum(path.stat().st_size for _, path in input_files(inputs))
        workers = 1 if size < WORTH_A_POOL_BYTES else 0
    return workers_of(engine, workers)


def input_files(inputs: Sequence[Path]) -> list[tuple[str, Path]]:
    """List name and path of each file of ``inputs``, once, sorted by path.

    Names are relative to the folder that all have in common: they name places in the output, which
    must not depend on where the files lie.
    """
    found: dict[Path, Path] = {}
    for given in inputs:
        for _, path in files_below(given, _SUFFIXES):
            if not path.name.endswith(_SUFFIXES):
                raise UserError(f"{path} is neither Parquet nor JSON lines", allowed=_SUFFIXES)
            found.setdefault(path.resolve(), path)
    top = os.path.commonpath([path.parent for path in found.values()])
    return sorted((path.relative_to(top).as_posix(), path) for path in found.values())


def _pieces(
    files: Sequence[tuple[str, Path]], fields: Fields, source: str | None
) -> Iterator[Piece]:
    for name, path in files:
        reader = RecordReader(fields, source or source_of(name))
        if path.name.endswith(PARQUET_SUFFIXES):
            yield from parquet_pieces_of(name, path, reader)
        else:
            yield from jsonl_pieces_of(name, path, reader)


def source_of(file: str) -> str:
    """Make the name of a source of a file's name: without its ending, and safe as a folder."""
    name = file.rsplit("/", 1)[-1]
    stem = name.removesuffix(max((end for end in _SUFFIXES if name.endswith(end)), key=len))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-") or "file"
