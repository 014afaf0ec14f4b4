"""Features of documents -> edges, clusters and the survivor of each cluster.

exact pass -> candidates -> verification -> scope -> components -> survivors. Documents of too few
cleaned characters take no part, so none can be the survivor of a cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from feldspar.core.execution import Executor
from feldspar.core.progress import progress
from feldspar.corpus.duplicates.candidates import Candidates, find_candidates, least_agreement
from feldspar.corpus.duplicates.components import component_labels
from feldspar.corpus.duplicates.exact import canonical_pairs, exact_edges
from feldspar.corpus.duplicates.representatives import representatives
from feldspar.corpus.duplicates.shingles import SHINGLE_CHARACTERS
from feldspar.corpus.duplicates.sketch import agreement
from feldspar.corpus.duplicates.survivors import preference, survivors
from feldspar.corpus.duplicates.verify import at_least, verify, verify_units
from feldspar.corpus.features import Features
from feldspar.corpus.parts import PartFiles
from feldspar.corpus.settings import DeduplicateSettings, HighestValue


@dataclass(frozen=True)
class Edges:
    """Pairs (n, 2) of keys, smaller first and sorted; ``jaccard`` is NaN where unchecked."""

    pairs: np.ndarray
    jaccard: np.ndarray

    def subset(self, mask: np.ndarray) -> "Edges":
        """The edges where ``mask`` holds."""
        return Edges(self.pairs[mask], self.jaccard[mask])


@dataclass(frozen=True)
class Deduplication:
    """What was found, indexed by document key.

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
    """No duplicate removal."""
    none = Edges(np.empty((0, 2), np.int64), np.empty(0))
    keys = np.arange(documents)
    found = Candidates(none.pairs, 0, 0, 0)
    return Deduplication(none, none, keys, keys, keys, np.full(documents, np.nan), found)


def deduplicate(
    files: PartFiles,
    features: Features,
    sources: np.ndarray,
    eligible: np.ndarray,
    source_names: Sequence[str],
    settings: DeduplicateSettings,
    pool: Executor,
) -> Deduplication:
    """Find duplicates among the ``eligible`` documents (mask by key) and choose survivors."""
    documents = len(sources)
    exact, stand_ins = exact_edges(features.hashes, sources, np.flatnonzero(eligible))
    near = stand_ins[features.characters[stand_ins] >= SHINGLE_CHARACTERS]
    candidates = find_candidates(
        near, features.sketches[near], settings.banding, settings.threshold
    )
    all_edges = _join(exact, _checked(files, features, candidates.pairs, settings, pool))
    within = sources[all_edges.pairs[:, 0]] == sources[all_edges.pairs[:, 1]]
    local = all_edges.subset(within)
    clusters = component_labels(documents, all_edges.pairs)
    within_clusters = component_labels(documents, local.pairs)
    rank = {name: number for number, name in enumerate(source_names)}
    priority = [rank[name] for name in settings.priority]
    keep = "highest" if isinstance(settings.keep, HighestValue) else settings.keep
    order = preference(keep, sources, features.sizes, priority, features.quality)
    if settings.cluster == "components":
        keepers, elsewhere = survivors(clusters, order), survivors(within_clusters, order)
    else:
        similar = partial(_similar, files, features, settings.threshold, pool)
        keepers = representatives(clusters, order, similar)
        elsewhere = representatives(within_clusters, order, similar)
    edges = all_edges
    if settings.scope == "local":
        edges, keepers, elsewhere = local, elsewhere, keepers
    similarity = _similarity(files, features, edges, keepers, pool)
    return Deduplication(edges, all_edges, clusters, keepers, elsewhere, similarity, candidates)


def _checked(
    files: PartFiles,
    features: Features,
    pairs: np.ndarray,
    settings: DeduplicateSettings,
    pool: Executor,
) -> Edges:
    """Candidate pairs that reach the threshold; all of them, unmeasured, when none is checked."""
    if not settings.banding.verified:
        return Edges(pairs, np.full(len(pairs), np.nan))
    rows = _compare(files, features, pairs, pool)
    rows = rows[(rows[:, 3] > 0) & at_least(rows[:, 2], rows[:, 3], settings.threshold)]
    return Edges(rows[:, :2], rows[:, 2] / rows[:, 3])


def _compare(files: PartFiles, features: Features, pairs: np.ndarray, pool: Executor) -> np.ndarray:
    """Rows (low, high, intersection, union) of all pairs."""
    found = [np.empty((0, 4), np.int64)]
    with progress("compare", len(pairs), "pairs") as advance:
        for rows in pool.map(verify, verify_units(files, pairs, features.characters)):
            found.append(rows)
            advance(len(rows))
    return np.concatenate(found)


def _similar(
    files: PartFiles, features: Features, threshold: float, pool: Executor, pairs: np.ndarray
) -> np.ndarray:
    """Mask of the pairs that reach the threshold; those far from it by sketch are not compared."""
    first, second = pairs[:, 0], pairs[:, 1]
    alike = (features.hashes[first] == features.hashes[second]).all(axis=1)
    close = agreement(features.sketches[first], features.sketches[second])
    asked = np.flatnonzero(~alike & (close >= least_agreement(threshold)))
    rows = _compare(files, features, canonical_pairs(pairs[asked]), pool)
    reached = (rows[:, 3] > 0) & at_least(rows[:, 2], rows[:, 3], threshold)
    found = {(low, high) for low, high in rows[reached, :2].tolist()}
    alike[asked] = [(min(pair), max(pair)) in found for pair in pairs[asked].tolist()]
    return alike


def _join(exact: np.ndarray, near: Edges) -> Edges:
    """Both kinds of edges in order, each pair once; an exact one wins."""
    pairs = np.concatenate([exact, near.pairs])
    jaccard = np.concatenate([np.ones(len(exact)), near.jaccard])
    order = np.lexsort((np.arange(len(pairs)), pairs[:, 1], pairs[:, 0]))
    pairs, jaccard = pairs[order], jaccard[order]
    first = np.ones(len(pairs), dtype=bool)
    first[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    return Edges(pairs[first], jaccard[first])


def _similarity(
    files: PartFiles, features: Features, edges: Edges, keepers: np.ndarray, pool: Executor
) -> np.ndarray:
    """Jaccard similarity of each dropped document to its survivor, measured where not yet known."""
    similarity = np.full(len(keepers), np.nan)
    dropped = np.flatnonzero(keepers != np.arange(len(keepers)))
    equal = (features.hashes[dropped] == features.hashes[keepers[dropped]]).all(axis=1)
    similarity[dropped[equal]] = 1.0
    known = {
        (low, high): jaccard
        for (low, high), jaccard in zip(edges.pairs.tolist(), edges.jaccard.tolist(), strict=True)
    }
    unknown = []
    for key in dropped[~equal].tolist():
        pair = (min(key, int(keepers[key])), max(key, int(keepers[key])))
        value = known.get(pair, float("nan"))
        if np.isnan(value):
            unknown.append(pair)
        similarity[key] = value
    rows = _compare(files, features, np.array(unknown, np.int64).reshape(-1, 2), pool)
    for low, high, intersection, union in rows.tolist():
        loser = low if keepers[low] == high else high
        similarity[loser] = intersection / union if union else 0.0
    return similarity
