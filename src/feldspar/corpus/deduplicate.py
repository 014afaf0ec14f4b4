"""Find duplicates: from the features of documents to edges, clusters and survivors.

exact pass -> band records -> candidates -> comparison -> scope -> components -> survivors.
Documents that a filter removes take no part, so none of them survives a cluster. Memory holds a
few integers for each document; records, pairs and edges go through sorted runs on disk.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feldspar.core.progress import progress
from feldspar.corpus.duplicates.candidates import (
    BandUnit,
    CandidateUnit,
    least_agreement,
    write_band_records,
    write_candidates,
)
from feldspar.corpus.duplicates.components import Components, component_labels
from feldspar.corpus.duplicates.edges import EdgeFile, Edges, merge_edges, no_edges
from feldspar.corpus.duplicates.exact import canonical_pairs, exact_edges
from feldspar.corpus.duplicates.runs import ranges
from feldspar.corpus.duplicates.shingles import SHINGLE_CHARACTERS
from feldspar.corpus.duplicates.sketch_files import SketchFiles
from feldspar.corpus.duplicates.survivors import preference, representatives, survivors
from feldspar.corpus.duplicates.verify import (
    PAIRS_TOGETHER,
    CompareUnit,
    OrderUnit,
    TextFiles,
    VerifyUnit,
    at_least,
    compare_candidates,
    in_tiles,
    order_candidates,
    tiles_of,
    verify_pairs,
    write_places,
)
from feldspar.corpus.features import Features
from feldspar.corpus.parts import PartFiles
from feldspar.corpus.stages import TITLES, Stages, UnitFiles
from feldspar.recipe.sections.corpus import DeduplicateSettings, HighestValue


@dataclass(frozen=True)
class Candidates:
    """Counts: pairs before the filter, pairs compared, giant groups, documents left unpaired."""

    unfiltered: int = 0
    compared: int = 0
    giant_groups: int = 0
    unpaired: int = 0


@dataclass(frozen=True)
class Deduplication:
    """The result of deduplication, indexed by document key.

    ``keepers`` holds the key of each document's survivor (itself when kept), ``elsewhere`` the same
    under the other scope; ``similarity`` the Jaccard similarity of a dropped document to its
    survivor, NaN elsewhere. ``clusters`` labels components over all edges, whatever the scope.
    """

    edges: Edges
    all_edges: Edges
    clusters: np.ndarray
    keepers: np.ndarray
    elsewhere: np.ndarray
    similarity: np.ndarray
    candidates: Candidates


def keep_all(documents: int) -> Deduplication:
    """Return the result of a run that looks for no duplicates."""
    none, keys = no_edges(), np.arange(documents)
    return Deduplication(none, none, keys, keys, keys, np.full(documents, np.nan), Candidates())


@dataclass(frozen=True)
class Corpus:
    """The input of deduplication; ``eligible`` is a mask by document key."""

    files: PartFiles
    sketches: SketchFiles
    features: Features
    eligible: np.ndarray
    names: Sequence[str]


def deduplicate(corpus: Corpus, settings: DeduplicateSettings, stages: Stages) -> Deduplication:
    """Find duplicates among the eligible documents and choose survivors."""
    features = corpus.features
    documents = len(features.sources)
    members = np.flatnonzero(corpus.eligible)
    exact, stand_ins = exact_edges(features.hashes, features.sources, members)
    near = np.zeros(documents, dtype=bool)
    near[stand_ins] = features.characters[stand_ins] >= SHINGLE_CHARACTERS
    rows = settings.partition_rows
    texts = _text_files(corpus, stages)
    write_places(texts.places, features.begins, features.sizes, features.characters)
    runs, candidates = _near_edges(corpus, near, rows, settings, stages)
    exact_run = stages.work / "exact.npy"
    ones = np.ones(len(exact), np.int64)
    np.save(exact_run, np.stack([exact[:, 0], exact[:, 1], ones, ones]))
    everywhere = EdgeFile(stages.work / "edges", "all")
    within = EdgeFile(stages.work / "edges", "local")
    joined, joined_within = Components(documents), Components(documents)
    for block in merge_edges([exact_run, *runs], rows):
        everywhere.write(block)
        joined.add(block.pairs)
        same = features.sources[block.pairs[:, 0]] == features.sources[block.pairs[:, 1]]
        local = Edges(block.pairs[same], block.jaccard[same])
        within.write(local)
        joined_within.add(local.pairs)
    edges = {"global": everywhere.finish(), "local": within.finish()}
    labels = {"global": joined.labels(), "local": joined_within.labels()}
    order = _order(corpus, settings)
    keepers = {}
    for scope, own in labels.items():
        if settings.cluster == "components":
            keepers[scope] = survivors(own, order)
        else:
            similar = _similar(corpus, edges[scope], settings.threshold, stages)
            keepers[scope] = representatives(own, order, similar)
    scope = settings.scope
    return Deduplication(
        edges=edges[scope],
        all_edges=edges["global"],
        clusters=labels["global"],
        keepers=keepers[scope],
        elsewhere=keepers["local" if scope == "global" else "global"],
        similarity=_to_survivors(corpus, edges[scope], keepers[scope], stages),
        candidates=candidates,
    )


def _near_edges(
    corpus: Corpus, near: np.ndarray, rows: int, settings: DeduplicateSettings, stages: Stages
) -> tuple[list[Path], Candidates]:
    """Find edges among the documents of the mask ``near``; return sorted runs of them."""
    banding, sketches, work = settings.banding, corpus.sketches, stages.work
    texts = _text_files(corpus, stages)
    np.save(work / "near.npy", near)
    stages.bind(str(rows), repr(banding), str(settings.threshold))
    bands = [
        (BandUnit(group, work / "near.npy", banding), "")
        for group in sketches.groups(max(1, rows // banding.bands))
    ]
    banded = sum(1 for _ in stages.run("bands", write_band_records, bands))
    records = UnitFiles(work / "bands", "records.npy", banded)
    units = [
        (CandidateUnit(part, sketches, texts, banding, settings.threshold, rows), part.name)
        for part in ranges(records, rows, leading=1)
    ]
    found = list(stages.run("candidates", write_candidates, units, len(units)))
    components = Components(len(near))
    for done in found:
        for path in sorted(done.folder.glob("pairs-*.npy")):
            components.add(np.load(path))
    np.save(work / "tiles.npy", tiles_of(components.labels(), corpus.features.characters))
    orders = [(OrderUnit(done.folder, work / "tiles.npy"), "") for done in found]
    ordered = [
        path
        for done in stages.run("order", order_candidates, orders, len(orders))
        for path in sorted(done.folder.glob("pairs-*.npy"))
    ]
    threshold = settings.threshold if banding.verified else None
    comparisons = [
        (CompareUnit(texts, part, threshold), part.name)
        for part in ranges(ordered, rows, leading=2)
    ]
    compared = list(stages.run("compare", compare_candidates, comparisons, len(comparisons)))
    total = {
        name: sum(done.counts[name] for done in found)
        for name in ("unfiltered", "giant_groups", "unpaired")
    }
    count = sum(done.counts["compared"] for done in compared)
    return [done.folder / "edges.npy" for done in compared], Candidates(compared=count, **total)


def _text_files(corpus: Corpus, stages: Stages) -> TextFiles:
    return TextFiles(corpus.files, stages.work / "places.npy")


def _order(corpus: Corpus, settings: DeduplicateSettings) -> np.ndarray:
    rank = {name: number for number, name in enumerate(corpus.names)}
    keep = "highest" if isinstance(settings.keep, HighestValue) else settings.keep
    features = corpus.features
    return preference(
        keep,
        features.sources,
        features.sizes,
        [rank[name] for name in settings.priority],
        features.quality,
    )


def _similar(
    corpus: Corpus, edges: Edges, threshold: float, stages: Stages
) -> Callable[[np.ndarray], np.ndarray]:
    """Return the test for pairs above the threshold; sketches far below it are not compared."""
    hashes = corpus.features.hashes

    def similar(pairs: np.ndarray) -> np.ndarray:
        equal = (hashes[pairs[:, 0]] == hashes[pairs[:, 1]]).all(axis=1)
        alike = equal | ~np.isnan(edges.similarities(pairs, len(hashes)))
        asked = np.flatnonzero(~alike)
        close = corpus.sketches.agreements(pairs[asked]) >= least_agreement(threshold)
        asked = asked[close]
        rows = _compare(corpus, pairs[asked], stages)
        alike[asked] = (rows[:, 1] > 0) & at_least(rows[:, 0], rows[:, 1], threshold)
        return alike

    return similar


def _to_survivors(corpus: Corpus, edges: Edges, keepers: np.ndarray, stages: Stages) -> np.ndarray:
    """Return the Jaccard similarity of each dropped document to its survivor."""
    similarity = np.full(len(keepers), np.nan)
    dropped = np.flatnonzero(keepers != np.arange(len(keepers)))
    pairs = np.stack([dropped, keepers[dropped]], axis=1)
    values = edges.similarities(pairs, len(keepers))
    hashes = corpus.features.hashes
    values[(hashes[pairs[:, 0]] == hashes[pairs[:, 1]]).all(axis=1)] = 1.0
    unknown = np.flatnonzero(np.isnan(values))
    rows = _compare(corpus, pairs[unknown], stages)
    values[unknown] = np.divide(
        rows[:, 0], rows[:, 1], out=np.zeros(len(rows)), where=rows[:, 1] > 0
    )
    similarity[dropped] = values
    return similarity


def _compare(corpus: Corpus, pairs: np.ndarray, stages: Stages) -> np.ndarray:
    """Compare pairs (n, 2), each given once: rows (intersection, union) in the same order."""
    wanted = canonical_pairs(pairs)
    labels = component_labels(corpus.files.documents, wanted)
    wanted = in_tiles(wanted, tiles_of(labels, corpus.features.characters))[2:].T
    rows = np.empty((len(pairs), 2), np.int64)
    texts = _text_files(corpus, stages)
    stretches = range(0, len(wanted), PAIRS_TOGETHER)
    units = (VerifyUnit(texts, wanted[start : start + PAIRS_TOGETHER]) for start in stretches)
    found = [np.empty((0, 4), np.int64)]
    with progress(TITLES["survivors"], len(wanted), "pairs") as advance:
        for part in stages.pool.map(verify_pairs, units):
            found.append(part)
            advance(len(part))
    measured = np.concatenate(found)
    ours = np.lexsort((pairs.max(axis=1), pairs.min(axis=1)))
    theirs = np.lexsort((measured[:, 1], measured[:, 0]))
    rows[ours] = measured[theirs, 2:]
    return rows
