"""Documents in, kept documents and the figures out: the way that both commands share."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from feldspar.core.errors import UserError, nearest
from feldspar.core.files import sha256_of_file
from feldspar.core.manifest import MANIFEST_NAME
from feldspar.core.progress import progress
from feldspar.corpus.columns import DocumentWriter, TableFile
from feldspar.corpus.deduplicate import Corpus, deduplicate, keep_all
from feldspar.corpus.document import Document, Tolerance
from feldspar.corpus.duplicates.edges import BLOCK
from feldspar.corpus.duplicates.sketch_files import SKETCHES_NAME, SketchFiles
from feldspar.corpus.features import Features, PrepareUnit, load_features, prepare
from feldspar.corpus.held_out import copies_in_train, exact_clusters
from feldspar.corpus.outcome import Outcome, jaccard_or_none
from feldspar.corpus.parts import PART_NAME, DocumentTable, PartFiles, part_table, stage_parts
from feldspar.corpus.replaced import replaced_characters
from feldspar.corpus.settings import CleanSettings, DeduplicateSettings, HighestValue, SplitSettings
from feldspar.corpus.split import assign
from feldspar.corpus.stages import Stages
from feldspar.corpus.unit_files import UnitFiles

KEPT_SPLIT = "kept"
RESIDENT_BYTES = 300
"""Integers of one document that are held in memory at most."""


@dataclass(frozen=True)
class Plan:
    """What shapes the outcome; without ``split`` all kept documents stay together."""

    clean: CleanSettings
    deduplicate: DeduplicateSettings | None
    split: SplitSettings | None

    @property
    def sought(self) -> bool:
        """Whether pairs of duplicates are looked for, to remove them or to keep them together."""
        near = self.split is not None and self.split.decontamination == "near"
        return self.deduplicate is not None or near


def quality_field(settings: DeduplicateSettings | None) -> str | None:
    """The field of records that chooses survivors, where one does."""
    keep = settings.keep if settings is not None else None
    return keep.field if isinstance(keep, HighestValue) else None


def process(
    documents: Iterable[Document | DocumentTable],
    names: Iterable[str],
    plan: Plan,
    tolerance: Tolerance,
    stages: Stages,
) -> Outcome:
    """Stage, prepare, deduplicate and split documents; part files are left below the work folder.

    ``names`` are the sources that must have documents, in order; others follow as they appear.
    Raises UserError for a source without a document of sufficient length, or with too much that is
    not UTF-8.
    """
    files, features, names = _stage(documents, names, plan, stages)
    short = features.characters < plan.clean.short
    replaced = replaced_characters(names, features, files)
    _check_sources(names, features.sources, short, plan.clean.short)
    settings = plan.deduplicate or DeduplicateSettings()
    if not plan.sought:
        found = keep_all(files.documents)
    else:
        _check_priority(names, settings.priority)
        _check_quality(settings, features)
        _check_memory(settings, files.documents)
        paths = UnitFiles(stages.work / "prepare", SKETCHES_NAME, len(files.paths))
        sketches = SketchFiles(paths, files.starts)
        corpus = Corpus(files, sketches, features, ~short, names)
        found = deduplicate(corpus, settings, stages)
    if plan.deduplicate is None:
        keys = np.arange(files.documents)
        nothing = np.full(files.documents, np.nan)
        found = replace(found, keepers=keys, elsewhere=keys, similarity=nothing)
    outcome = Outcome(
        names=names,
        files=files,
        features=features,
        short=short,
        found=found,
        splits=[KEPT_SPLIT] * files.documents,
        copies_in_train=None,
        bad_records=tolerance.skipped,
        replaced_characters=replaced,
        threshold=settings.threshold,
        local=settings.scope == "local",
    )
    return outcome if plan.split is None else _split(outcome, plan.split, plan.sought)


def _split(outcome: Outcome, settings: SplitSettings, sought: bool) -> Outcome:
    """The outcome with the side of each document, and what each way would leave in train."""
    features = outcome.features
    sources = [outcome.names[rank] for rank in features.sources.tolist()]
    groups = list(outcome.files.column("group"))
    texts = exact_clusters(features, ~outcome.short)
    clusters = {"exact": texts}
    if sought:
        clusters["near"] = outcome.found.clusters
    sides = {name: assign(sources, groups, own, settings) for name, own in clusters.items()}
    edges = outcome.found.all_edges if sought else None
    copies = {
        name: copies_in_train(features, texts, outcome.kept, own, edges)
        for name, own in sides.items()
    }
    if settings.decontamination is None:
        splits = assign(sources, groups, np.arange(len(sources)), settings)
    else:
        splits = sides[settings.decontamination]
    return replace(outcome, splits=splits, copies_in_train=copies)


def _stage(
    documents: Iterable[Document | DocumentTable],
    names: Iterable[str],
    plan: Plan,
    stages: Stages,
) -> tuple[PartFiles, Features, list[str]]:
    """The prepared parts, their numbers and the names of the sources.

    Documents are read again after a kill; parts that come out as before are not prepared again.
    """
    raw = stages.work / "raw"

    def units() -> Iterator[tuple[PrepareUnit, str]]:
        for part in stage_parts(documents, raw):
            unit = PrepareUnit(part, plan.clean.normalise, plan.clean.short, plan.sought)
            yield unit, sha256_of_file(part)

    stages.bind(plan.clean.model_dump_json(), str(plan.sought))
    ranks = {name: rank for rank, name in enumerate(names)}
    folders, counts, ranks_of_parts = [], [], []
    for done in stages.run("prepare", prepare, units()):
        folders.append(done.folder)
        counts.append(done.counts["documents"])
        own = [ranks.setdefault(name, len(ranks)) for name in done.counts["sources"]]
        ranks_of_parts.append(np.array(own, np.int64))
        shutil.rmtree(raw / done.folder.name)
    if not folders:
        raise UserError("the sources hold no document")
    stages.bind(*(sha256_of_file(folder / MANIFEST_NAME) for folder in folders))
    starts = accumulate(counts, initial=0)
    paths = UnitFiles(stages.work / "prepare", PART_NAME, len(folders))
    files = PartFiles(paths, tuple(starts))
    return files, load_features(folders, ranks_of_parts), list(ranks)


def _check_memory(settings: DeduplicateSettings, documents: int) -> None:
    if documents * RESIDENT_BYTES > settings.memory_bytes:
        raise UserError(
            f"memory: {settings.memory} do not hold the integers of {documents:,} documents",
            allowed=f"at least {documents * RESIDENT_BYTES / 1e9:.2f} GB",
            do="give more (--memory, deduplicate.memory); with deduplicate: null, where pairs are "
            "sought for the split only, split.decontamination: exact needs none",
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
    kept, starts = outcome.kept, outcome.files.starts
    with progress("write", int(kept.sum())) as advance:
        for path, (start, end) in zip(outcome.files.paths, pairwise(starts), strict=True):
            rows: dict[Path, list[int]] = {}
            for row in np.flatnonzero(kept[start:end]).tolist():
                source = outcome.names[outcome.sources[start + row]]
                rows.setdefault(folder_of[outcome.splits[start + row], source], []).append(row)
            table = part_table(path)
            for folder, own in rows.items():
                writers[folder].write(table.take(own))
                advance(len(own))
    for writer in writers.values():
        writer.close()


PLACES = ("id", "source", "origin")
"""What names a document: ids may repeat, source and origin together do not."""


def write_pairs(outcome: Outcome, folder: Path) -> None:
    """``duplicates.parquet`` (PLACES, the same with ``kept_`` before them, jaccard) and
    ``edges.parquet`` (id_a, id_b, jaccard).

    A similarity that was never measured is null.
    """
    found = outcome.found
    dropped = np.flatnonzero(~outcome.short & ~outcome.kept)
    columns = (*PLACES, *(f"kept_{name}" for name in PLACES))
    with TableFile(folder / "duplicates.parquet", columns, "jaccard") as table:
        for start in range(0, len(dropped), BLOCK):
            keys = dropped[start : start + BLOCK]
            pairs = keys, found.keepers[keys]
            _write_block(outcome, table, PLACES, pairs, found.similarity[keys])
    with TableFile(folder / "edges.parquet", ("id_a", "id_b"), "jaccard") as table:
        for block in found.edges.blocks():
            pairs = block.pairs[:, 0], block.pairs[:, 1]
            _write_block(outcome, table, ("id",), pairs, block.jaccard)


def _write_block(
    outcome: Outcome,
    table: TableFile,
    names: Sequence[str],
    pairs: tuple[np.ndarray, np.ndarray],
    jaccard: np.ndarray,
) -> None:
    texts = [outcome.files.strings(name, keys) for keys in pairs for name in names]
    table.write([*texts, [jaccard_or_none(value) for value in jaccard.tolist()]])
