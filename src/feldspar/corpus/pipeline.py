"""Documents in, kept documents and the figures out: the way that both commands share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from feldspar.core.errors import UserError, nearest
from feldspar.corpus.clean import Normalisation
from feldspar.corpus.columns import TableFile
from feldspar.corpus.decontaminate import Decontaminator
from feldspar.corpus.deduplicate import Corpus, deduplicate, keep_all
from feldspar.corpus.document import Tolerance
from feldspar.corpus.duplicates.edges import BLOCK
from feldspar.corpus.duplicates.sketch_files import SketchFiles
from feldspar.corpus.features import Features, Preparation
from feldspar.corpus.filtering import all_reasons, reasons_of
from feldspar.corpus.held_out import copies_in_train, exact_clusters
from feldspar.corpus.outcome import JACCARD_DECIMALS, Outcome
from feldspar.corpus.readers.pieces import Piece
from feldspar.corpus.reading import read_corpus
from feldspar.corpus.replaced import replaced_characters
from feldspar.corpus.split import assign
from feldspar.corpus.stages import Stages
from feldspar.recipe.sections.corpus import (
    DeduplicateSettings,
    Filter,
    HighestValue,
    SplitSettings,
)

KEPT_SPLIT = "kept"
RESIDENT_BYTES = 300
"""Integers of one document that are held in memory at most."""
UNIT_BYTES = 48_000_000
"""Bytes that a unit of work holds beside them: parts of text, their cleaned form, columns."""


@dataclass(frozen=True)
class Plan:
    """What shapes the outcome; without ``split`` all kept documents stay together."""

    normalise: Normalisation
    filters: tuple[Filter, ...]
    deduplicate: DeduplicateSettings | None
    split: SplitSettings | None
    transliterations: tuple[tuple[str, str, str], ...] = ()
    """Source, characters to replace, characters in their place."""

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
    pieces: Iterable[Piece],
    names: Iterable[str],
    plan: Plan,
    tolerance: Tolerance,
    stages: Stages,
    decontaminator: Decontaminator | None = None,
) -> Outcome:
    """Read, prepare, deduplicate and split documents; part files are left below the work folder.

    ``names`` are the sources that must have documents, in order; others follow as they appear.
    Raises UserError where one of them, or all of the others together, have no document that the
    filters keep, and for a source with too much that is not UTF-8.
    """
    preparation = Preparation(plan.normalise, plan.filters, plan.sought, plan.transliterations)
    needed = list(names)
    read = read_corpus(pieces, needed, preparation, tolerance, decontaminator, stages)
    files, features, names = read.files, read.features, read.names
    replaced = replaced_characters(names, features, files)
    _check_sources(needed or names, features, plan.filters, bool(needed))
    settings = plan.deduplicate or DeduplicateSettings()
    if not plan.sought:
        found = keep_all(files.documents)
    else:
        _check_priority(names, settings.priority)
        _check_quality(settings, features)
        _check_memory(settings, files.documents)
        sketches = SketchFiles(files, 0, len(files))
        corpus = Corpus(files, sketches, features, features.reasons < 0, names)
        found = deduplicate(corpus, settings, stages)
    if plan.deduplicate is None:
        keys = np.arange(files.documents)
        nothing = np.full(files.documents, np.nan)
        found = replace(found, keepers=keys, elsewhere=keys, similarity=nothing)
    outcome = Outcome(
        names=names,
        files=files,
        features=features,
        reasons=reasons_of(plan.filters),
        found=found,
        splits=[KEPT_SPLIT] * files.documents,
        copies_in_train=None,
        bad_records=tolerance.skipped,
        noted=tolerance.noted,
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
    texts = exact_clusters(features, ~outcome.filtered)
    clusters = {"exact": texts}
    if sought:
        clusters["near"] = outcome.found.clusters
    kept = outcome.kept
    sides = {name: assign(sources, groups, own, kept, settings) for name, own in clusters.items()}
    edges = outcome.found.all_edges if sought else None
    copies = {
        name: copies_in_train(features, texts, kept, own, edges) for name, own in sides.items()
    }
    if settings.decontamination is None:
        splits = assign(sources, groups, np.arange(len(sources)), kept, settings)
    else:
        splits = sides[settings.decontamination]
    return replace(outcome, splits=splits, copies_in_train=copies)


def _check_memory(settings: DeduplicateSettings, documents: int) -> None:
    needed = documents * RESIDENT_BYTES + UNIT_BYTES
    if needed > settings.memory_bytes:
        raise UserError(
            f"memory: {settings.memory} do not hold the integers of {documents:,} documents",
            allowed=f"at least {-(-needed // 10**6)}MB",
            do="give more (--memory, deduplicate.memory); with deduplicate: null, where pairs are "
            "sought for the split only, split.decontamination: exact needs none",
        )


def _check_sources(
    names: Sequence[str], features: Features, filters: Sequence[Filter], each: bool
) -> None:
    """Check that the filters keep a document of ``each`` source, or of all of them together."""
    groups = [[number] for number in range(len(names))] if each else [list(range(len(names)))]
    for group in groups:
        reasons = features.reasons[np.isin(features.sources, group)]
        if not (reasons < 0).any():
            title = "source" if len(group) == 1 else "sources"
            raise UserError(
                f"{title} {', '.join(names[number] for number in group)} "
                f"{'has' if len(group) == 1 else 'have'} no document left after cleaning: of "
                f"{len(reasons)} read, {_removals(reasons, reasons_of(filters)) or 'none is left'}",
                found=", ".join(str(each.model_dump(mode="json")) for each in filters),
                do="correct the source, or relax the filter: clean.short (corpus dedup: --short) "
                "or corpus.filters",
            )


def _removals(places: np.ndarray, reasons: Sequence[str]) -> str:
    """Tell how many documents the filters remove for which reason."""
    phrases = all_reasons()
    counts = {reason: int((places == place).sum()) for place, reason in enumerate(reasons)}
    return ", ".join(f"{count} {phrases[reason]}" for reason, count in counts.items() if count)


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


PLACES = ("id", "source", "origin")
"""What names a document: ids may repeat, source and origin together do not."""


def write_pairs(outcome: Outcome, folder: Path) -> None:
    """``duplicates.parquet`` (PLACES, the same with ``kept_`` before them, jaccard) and
    ``edges.parquet`` (id_a, id_b, jaccard).

    A similarity that was never measured is null.
    """
    found = outcome.found
    dropped = np.flatnonzero(~outcome.filtered & ~outcome.kept)
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
    both = outcome.files.take(names, np.concatenate(pairs))
    texts = [*both.slice(0, len(jaccard)).columns, *both.slice(len(jaccard)).columns]
    table.write(texts, np.round(jaccard, JACCARD_DECIMALS))
