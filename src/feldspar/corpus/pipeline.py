"""Documents in, kept documents and the figures out: the way that both commands share."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from feldspar.core.errors import UserError, nearest
from feldspar.core.execution import Executor
from feldspar.core.progress import progress
from feldspar.corpus.columns import (
    DocumentWriter,
    read_documents,
    write_table,
)
from feldspar.corpus.deduplicate import deduplicate, keep_all
from feldspar.corpus.document import Document, Tolerance
from feldspar.corpus.features import Features, PrepareUnit, join_features, prepare
from feldspar.corpus.outcome import Outcome, jaccard_or_none
from feldspar.corpus.parts import PartFiles, stage_parts
from feldspar.corpus.settings import CleanSettings, DeduplicateSettings, HighestValue, SplitSettings
from feldspar.corpus.split import assign

KEPT_SPLIT = "kept"


@dataclass(frozen=True)
class Plan:
    """What shapes the outcome; without ``split`` all kept documents stay together."""

    clean: CleanSettings
    deduplicate: DeduplicateSettings | None
    split: SplitSettings | None


def quality_field(settings: DeduplicateSettings | None) -> str | None:
    """The field of records that chooses survivors, where one does."""
    keep = settings.keep if settings is not None else None
    return keep.field if isinstance(keep, HighestValue) else None


def process(
    documents: Iterable[Document],
    names: Iterable[str],
    plan: Plan,
    tolerance: Tolerance,
    work: Path,
    pool: Executor,
) -> Outcome:
    """Stage, prepare, deduplicate and split documents; part files are left below ``work``.

    ``names`` are the sources that must have documents, in order; others follow as they appear.
    Raises UserError for a source without a document of sufficient length, and for ids that occur
    twice.
    """
    files, features = _stage(documents, plan, work, pool)
    names = list(dict.fromkeys([*names, *features.sources]))
    rank = {name: number for number, name in enumerate(names)}
    sources = np.array([rank[name] for name in features.sources], dtype=np.int64)
    short = features.characters < plan.clean.short
    _check_ids(features)
    _check_sources(names, sources, short, plan.clean.short)
    if plan.deduplicate is None:
        found = keep_all(files.documents)
    else:
        _check_priority(names, plan.deduplicate.priority)
        _check_quality(plan.deduplicate, features)
        found = deduplicate(files, features, sources, ~short, names, plan.deduplicate, pool)
    if plan.split is None:
        splits = [KEPT_SPLIT] * files.documents
    else:
        splits = assign(features.sources, features.groups, found.clusters, plan.split)
    settings = plan.deduplicate or DeduplicateSettings()
    return Outcome(
        names=names,
        sources=sources,
        files=files,
        features=features,
        short=short,
        found=found,
        splits=splits,
        bad_records=tolerance.skipped,
        threshold=settings.threshold,
        local=settings.scope == "local",
    )


def _stage(
    documents: Iterable[Document], plan: Plan, work: Path, pool: Executor
) -> tuple[PartFiles, Features]:
    def units() -> Iterator[PrepareUnit]:
        for number, part in enumerate(stage_parts(documents, work / "raw")):
            yield PrepareUnit(
                part=part,
                folder=work / "normalised" / f"{number:05d}",
                normalise=plan.clean.normalise,
                short=plan.clean.short,
                sketch=plan.deduplicate is not None,
            )

    paths, pieces = [], []
    with progress("read and sketch") as advance:
        for prepared in pool.map(prepare, units()):
            paths.append(prepared.part)
            pieces.append(prepared.features)
            advance(len(prepared.features.ids))
    if not pieces:
        raise UserError("the sources hold no document")
    starts = accumulate((len(piece.ids) for piece in pieces), initial=0)
    return PartFiles(tuple(paths), tuple(starts)), join_features(pieces)


def _check_ids(features: Features) -> None:
    seen: dict[str, int] = {}
    for key, name in enumerate(features.ids):
        other = seen.setdefault(name, key)
        if other != key:
            raise UserError(
                f"two documents have the id {name!r}",
                where=f"{features.origins[other]} and {features.origins[key]}",
                do="make the ids unique, or leave them out: file and line then serve as id",
            )


def _check_sources(names: list[str], sources: np.ndarray, short: np.ndarray, least: int) -> None:
    for number, name in enumerate(names):
        own = sources == number
        if not (own & ~short).any():
            raise UserError(
                f"source {name} has no document left after cleaning: of {int(own.sum())} read, "
                f"{int((own & short).sum())} have fewer than {least} cleaned characters",
                do="correct the source, or lower clean.short",
            )


def _check_priority(names: list[str], priority: Iterable[str]) -> None:
    for name in priority:
        if name not in names:
            hint = nearest(name, names)
            raise UserError(
                f"priority: there is no source {name!r}"
                + (f"; did you mean {hint!r}?" if hint else ""),
                allowed=names,
            )


def _check_quality(settings: DeduplicateSettings, features: Features) -> None:
    field = quality_field(settings)
    if field is not None and np.isnan(features.quality).all():
        raise UserError(
            f"keep: no document has the field {field!r}",
            do="name a field that holds numbers, or choose another way to keep",
        )


def write_kept(outcome: Outcome, folder_of: dict[tuple[str, str], Path]) -> None:
    """Write the kept documents, in order; ``folder_of`` maps split and source to a folder."""
    writers = {path: DocumentWriter(path) for path in dict.fromkeys(folder_of.values())}
    kept = outcome.kept
    key = 0
    with progress("write", int(kept.sum())) as advance:
        for path in outcome.files.paths:
            for document in read_documents(path):
                if kept[key]:
                    writers[folder_of[outcome.splits[key], document.source]].write(document)
                    advance(1)
                key += 1
    for writer in writers.values():
        writer.close()


def write_pairs(outcome: Outcome, folder: Path) -> None:
    """``duplicates.parquet`` (id, kept_id, jaccard), ``edges.parquet`` (id_a, id_b, jaccard).

    A similarity that was never measured is null.
    """
    ids, found = outcome.features.ids, outcome.found
    dropped = np.flatnonzero(~outcome.short & ~outcome.kept).tolist()
    write_table(
        folder / "duplicates.parquet",
        {
            "id": ("string", [ids[key] for key in dropped]),
            "kept_id": ("string", [ids[found.keepers[key]] for key in dropped]),
            "jaccard": ("double", [jaccard_or_none(found.similarity[key]) for key in dropped]),
        },
    )
    pairs = found.edges.pairs.tolist()
    write_table(
        folder / "edges.parquet",
        {
            "id_a": ("string", [ids[low] for low, _ in pairs]),
            "id_b": ("string", [ids[high] for _, high in pairs]),
            "jaccard": ("double", [jaccard_or_none(v) for v in found.edges.jaccard.tolist()]),
        },
    )
