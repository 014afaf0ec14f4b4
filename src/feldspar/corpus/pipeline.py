"""Read, prepare, deduplicate and split: the work that ``corpus build`` and ``dedup`` share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from feldspar.corpus.checks import (
    check_memory,
    check_priority,
    check_quality,
    check_sources,
    replaced_characters,
)
from feldspar.corpus.clean import Normalisation
from feldspar.corpus.columns import TableFile
from feldspar.corpus.decontaminate import Decontaminator
from feldspar.corpus.deduplicate import Corpus, deduplicate, keep_all
from feldspar.corpus.document import Tolerance
from feldspar.corpus.duplicates.edges import BLOCK
from feldspar.corpus.duplicates.sketch_files import SketchFiles
from feldspar.corpus.features import Preparation
from feldspar.corpus.filtering import reasons_of
from feldspar.corpus.held_out import copies_in_train, exact_clusters
from feldspar.corpus.outcome import JACCARD_DECIMALS, Outcome
from feldspar.corpus.readers.pieces import Piece
from feldspar.corpus.reading import read_corpus
from feldspar.corpus.split import assign
from feldspar.corpus.stages import Stages
from feldspar.recipe.sections.corpus import DeduplicateSettings, Filter, SplitSettings

KEPT_SPLIT = "kept"


@dataclass(frozen=True)
class Plan:
    """The settings that shape the outcome; without ``split`` kept documents stay together."""

    normalise: Normalisation
    filters: tuple[Filter, ...]
    deduplicate: DeduplicateSettings | None
    split: SplitSettings | None
    transliterations: tuple[tuple[str, str, str], ...] = ()
    """Source, characters to replace, characters in their place."""

    @property
    def sought(self) -> bool:
        """Tell whether pairs of duplicates are sought, to remove them or to keep them together."""
        near = self.split is not None and self.split.decontamination == "near"
        return self.deduplicate is not None or near


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
    Raises UserError where the filters keep no document of a named source, or of all sources where
    none is named, and for a source with too many characters that are not UTF-8.
    """
    preparation = Preparation(plan.normalise, plan.filters, plan.sought, plan.transliterations)
    needed = list(names)
    read = read_corpus(pieces, needed, preparation, tolerance, decontaminator, stages)
    files, features, names = read.files, read.features, read.names
    replaced = replaced_characters(names, features, files)
    check_sources(needed or names, features, plan.filters, bool(needed))
    settings = plan.deduplicate or DeduplicateSettings()
    if not plan.sought:
        found = keep_all(files.documents)
    else:
        check_priority(names, settings.priority)
        check_quality(settings, features)
        check_memory(settings, files.documents)
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
    """Add the split of each document, and count copies in train under each way to split."""
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
