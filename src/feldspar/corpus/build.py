"""Build the folder of documents that a recipe's ``corpus`` section describes."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from feldspar import __version__
from feldspar.core.artifact import Wanted, find_artifact, finish_artifact, require_replaceable
from feldspar.core.errors import UserError
from feldspar.core.files import digest_of, new_folder
from feldspar.core.json_files import write_json
from feldspar.core.progress import say
from feldspar.corpus.columns import arrow
from feldspar.corpus.decontaminate import Decontaminator
from feldspar.corpus.document import Tolerance
from feldspar.corpus.engine import Engine, started
from feldspar.corpus.identity import settings_digest
from feldspar.corpus.ontology import build_ontology
from feldspar.corpus.pipeline import Plan, process, quality_field, write_pairs
from feldspar.corpus.readers import fetch_archives, pieces_of
from feldspar.corpus.readers.pieces import Piece
from feldspar.corpus.report import Report, make_report, report_from_json
from feldspar.corpus.split import SPLITS
from feldspar.corpus.stages import Stages, work_folder
from feldspar.corpus.store import KIND, split_folder
from feldspar.corpus.writing import write_kept
from feldspar.recipe.sections.corpus import CorpusSettings, DeduplicateSettings, PackageReader

REPORT_NAME = "report.json"
WITHOUT_EFFECT = frozenset({"path", "ontology"})
"""Keys that say where folders lie, not what the documents are."""


def wanted_documents(settings: CorpusSettings, key: str = "") -> Wanted:
    """Return the folder of documents that settings ask for: all of them but the places of folders.

    ``key`` is the recipe's key that names the folder.
    """
    digest = settings_digest(settings, WITHOUT_EFFECT)
    values = settings.model_dump(mode="json", by_alias=True, exclude=set(WITHOUT_EFFECT))
    return Wanted(KIND, digest, values, key=key)


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
    if settings.ontology is not None and not settings.ontology.path.is_dir():
        build_ontology(settings.ontology, offline)
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


def check_apart(out: Path, inputs: Iterable[Path]) -> None:
    """Raises UserError when the output and an input are one folder, or one lies in the other.

    The input would be replaced, or the output read the next time.
    """
    target = out.resolve()
    for given in inputs:
        source = given.expanduser().resolve()
        if target.is_relative_to(source) or source.is_relative_to(target):
            raise UserError(
                f"the output {out} and the input {given} overlap",
                do="choose an output folder beside the inputs",
            )


def finished_report(out: Path, wanted: Wanted, overwrite: bool) -> Report | None:
    """Return the report of the finished folder ``out``; None when ``out`` is to be made.

    With ``overwrite`` the folder is always made again. Raises UserError when ``out`` holds
    something else, or may not be replaced; RunError that names a damaged file.
    """
    if overwrite:
        require_replaceable(out, wanted.kind)
        return None
    finished = find_artifact(out, wanted)
    if finished is None:
        return None
    finished.verify()
    say(f"{out} is finished already with these settings: nothing to do")
    return report_from_json(finished.file(REPORT_NAME).read_text(encoding="utf-8"))


def finish_folder(folder: Path, wanted: Wanted, command: str, report: Report) -> None:
    """Write the report and the manifest, which names every file."""
    write_json(folder / REPORT_NAME, report.to_json())
    counts = {
        name: {
            "documents": counts.kept.documents,
            "bytes": counts.kept.bytes,
            "licences": counts.licences,
            "removed": {reason: vars(amount) for reason, amount in counts.removed.items()},
            "noted": counts.noted,
            "splits": {split: vars(amount) for split, amount in counts.splits.items()},
            "replaced_characters": counts.replaced_characters,
        }
        for name, counts in report.sources.items()
    }
    total = {
        "documents": sum(each["documents"] for each in counts.values()),
        "bytes": sum(each["bytes"] for each in counts.values()),
        "sources": list(counts),
        "by_source": counts,
        "bad_records": report.bad_records,
    }
    if report.decontamination is not None:
        total["decontamination"] = report.decontamination
    finish_artifact(folder, wanted, command=command, counts=total, warnings=report.warnings)
