"""Report on a corpus: counts that add up, the source of each survivor, and examples."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from feldspar.corpus.columns import column_of
from feldspar.corpus.decontaminate import Decontamination
from feldspar.corpus.examples import Example, example_pairs
from feldspar.corpus.filtering import all_reasons
from feldspar.corpus.held_out import Copies
from feldspar.corpus.outcome import Outcome, exact_copies, length_counts, repeated_ids


@dataclass(frozen=True)
class Amount:
    """Documents and the UTF-8 bytes of their kept form of text."""

    documents: int = 0
    bytes: int = 0


REASONS = {
    "overlap": "share a run of words with an evaluation set",
    **all_reasons(),
    "exact": "have the cleaned text of another document",
    "near": "are similar to another document",
}
"""Reasons to remove a document, each with a predicate for messages to people."""


@dataclass(frozen=True)
class SourceCounts:
    """Count the documents of a source: read = kept + the sum of what was removed, by reason.

    ``replaced_characters`` of the texts read were not UTF-8 and became U+FFFD. ``noted`` counts by
    reason other faults of records that were read in spite of them.
    """

    read: Amount
    removed: dict[str, Amount]
    kept: Amount
    dropped_global: int
    dropped_local: int
    splits: dict[str, Amount]
    licences: dict[str, int]
    replaced_characters: int = 0
    noted: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """The figures of a corpus.

    ``lost_to[s][t]`` counts documents (and bytes) of source s whose survivor is of source t.
    ``pairs[s][t]`` counts edges between the sources whatever the scope, symmetric; ``pair_bytes``
    counts the bytes of the shorter text of each edge. ``duplicated[s][t]`` counts documents of s
    that an edge or an equal text joins with another document of t. Neither depends on which
    document survives.
    ``cluster_sizes`` maps size to number of clusters within the scope. ``below_threshold`` is the
    share of dropped documents less similar to their survivor than the threshold (chaining, or
    pairs that were never checked). ``lengths[s]`` counts the documents read and kept by length, see
    ``length_counts``. ``bad_records`` counts the records left out by source, or by the name of
    the file where records name their sources. ``decontamination`` counts overlaps with each
    evaluation set. ``copies_in_train`` counts documents of train with a copy among the held-out
    ones, if ``near`` or ``exact`` copies were put on one side. ``repeated_ids`` counts documents
    whose id another has. ``built`` is off where a finished folder was found instead.
    """

    settings: dict[str, Any]
    sources: dict[str, SourceCounts]
    lost_to: dict[str, dict[str, Amount]]
    pairs: dict[str, dict[str, int]]
    cluster_sizes: dict[str, int]
    dropped: int
    below_threshold: float | None
    edges: int
    candidates: dict[str, int]
    examples: list[Example]
    bad_records: dict[str, int] = field(default_factory=dict)
    duplicated: dict[str, dict[str, Amount]] = field(default_factory=dict)
    lengths: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    decontamination: dict[str, Any] | None = None
    copies_in_train: dict[str, Copies] | None = None
    pair_bytes: dict[str, dict[str, int]] | None = None
    repeated_ids: int = 0
    built: bool = True

    @property
    def warnings(self) -> list[str]:
        """Describe faults of the input for people."""
        bad = sum(self.bad_records.values())
        replaced = {
            name: counts.replaced_characters
            for name, counts in self.sources.items()
            if counts.replaced_characters
        }
        lines = [f"{bad} bad records were left out"] if bad else []
        if replaced:
            where = ", ".join(f"{count:,} of {name}" for name, count in replaced.items())
            lines.append(f"characters that are not UTF-8 were replaced by U+FFFD: {where}")
        lines += [
            f"{count:,} of {name}: {reason}"
            for name, counts in self.sources.items()
            for reason, count in counts.noted.items()
        ]
        if self.repeated_ids:
            lines.append(f"{self.repeated_ids:,} documents have an id that another has")
        return lines

    @property
    def reasons(self) -> list[str]:
        """Return the reasons for which documents may be removed, in their order."""
        return list(next(iter(self.sources.values())).removed) if self.sources else []

    @property
    def removed(self) -> dict[str, Amount]:
        """Add up the removed documents of all sources by reason."""
        amounts = {
            reason: [each.removed[reason] for each in self.sources.values()]
            for reason in self.reasons
        }
        return {reason: _sum(each) for reason, each in amounts.items()}

    def to_json(self) -> dict[str, Any]:
        """Return plain values, the same for the same documents and settings."""
        value = asdict(self)
        del value["built"]
        for name in ("decontamination", "copies_in_train", "pair_bytes"):
            if value[name] is None:
                del value[name]
        return value


def report_from_json(text: str) -> Report:
    """Read the report of a folder that was built before."""
    return replace(TypeAdapter(Report).validate_json(text), built=False)


def make_report(
    outcome: Outcome, settings: dict[str, Any], overlaps: Decontamination | None = None
) -> Report:
    """Report on ``outcome``; ``settings`` shaped it, ``overlaps`` were left out on reading."""
    found = outcome.found
    pairs, pair_bytes = _pairs(outcome)
    dropped = np.flatnonzero(~outcome.filtered & ~outcome.kept)
    below = found.similarity[dropped] < outcome.threshold - 1e-12
    sizes = np.unique(found.keepers[~outcome.filtered], return_counts=True)[1]
    return Report(
        settings=settings,
        sources=_source_counts(outcome, overlaps),
        lost_to=_lost_to(outcome, dropped),
        pairs=pairs,
        pair_bytes=pair_bytes,
        duplicated=_duplicated(outcome),
        cluster_sizes={str(size): count for size, count in sorted(Counter(sizes.tolist()).items())},
        dropped=len(dropped),
        below_threshold=round(float(below.mean()), 6) if len(dropped) else None,
        edges=len(found.edges.pairs),
        bad_records=outcome.bad_records,
        candidates={
            "before_filter": found.candidates.unfiltered,
            "compared": found.candidates.compared,
            "giant_groups": found.candidates.giant_groups,
            "unpaired_documents": found.candidates.unpaired,
        },
        examples=example_pairs(outcome),
        lengths=length_counts(outcome),
        copies_in_train=outcome.copies_in_train,
        repeated_ids=repeated_ids(outcome),
        decontamination=None if overlaps is None else overlaps.to_json(),
    )


def _source_counts(outcome: Outcome, overlaps: Decontamination | None) -> dict[str, SourceCounts]:
    keys = np.arange(len(outcome.sources))
    exact = exact_copies(outcome)
    near = ~outcome.filtered & ~outcome.kept & ~exact
    here = outcome.found.keepers != keys
    there = outcome.found.elsewhere != keys
    dropped_global, dropped_local = (there, here) if outcome.local else (here, there)
    splits = np.array(outcome.splits, dtype=object)
    licences = _licences(outcome)
    counts = {}
    for number, name in enumerate(outcome.names):
        own = outcome.sources == number
        kept = own & outcome.kept
        removed = {
            reason: _amount(outcome, own & (outcome.features.reasons == place))
            for place, reason in enumerate(outcome.reasons)
        }
        removed |= {"exact": _amount(outcome, own & exact), "near": _amount(outcome, own & near)}
        if overlaps is not None:
            removed = {"overlap": Amount(**overlaps.sources.get(name, {}))} | removed
        counts[name] = SourceCounts(
            read=_sum([*removed.values(), _amount(outcome, kept)]),
            removed=removed,
            kept=_amount(outcome, kept),
            replaced_characters=outcome.replaced_characters.get(name, 0),
            noted=outcome.noted.get(name, {}),
            dropped_global=int((own & dropped_global).sum()),
            dropped_local=int((own & dropped_local).sum()),
            splits={
                split: _amount(outcome, kept & (splits == split))
                for split in sorted(set(outcome.splits))
            },
            licences=dict(sorted(licences[number].items())),
        )
    return counts


def _licences(outcome: Outcome) -> list[Counter[str]]:
    """Count the kept documents of each source by licence."""
    found: list[Counter[str]] = [Counter() for _ in outcome.names]
    all_kept = outcome.kept
    for start, table in outcome.files.tables():
        own = slice(start, start + len(table))
        kept, sources = all_kept[own], outcome.sources[own]
        for number in np.unique(sources[kept]).tolist():
            chosen = table.column("licence").filter(column_of(kept & (sources == number)))
            for item in chosen.value_counts().to_pylist():
                found[number][item["values"] or "unknown"] += item["counts"]
    return found


def _sum(amounts: Sequence[Amount]) -> Amount:
    return Amount(sum(each.documents for each in amounts), sum(each.bytes for each in amounts))


def _amount(outcome: Outcome, mask: np.ndarray) -> Amount:
    return Amount(int(mask.sum()), int(outcome.features.sizes[mask].sum()))


def _lost_to(outcome: Outcome, dropped: np.ndarray) -> dict[str, dict[str, Amount]]:
    count = len(outcome.names)
    documents = np.zeros((count, count), np.int64)
    sizes = np.zeros((count, count), np.int64)
    losers = outcome.sources[dropped]
    keepers = outcome.sources[outcome.found.keepers[dropped]]
    np.add.at(documents, (losers, keepers), 1)
    np.add.at(sizes, (losers, keepers), outcome.features.sizes[dropped])
    return {
        loser: {
            keeper: Amount(int(documents[i, j]), int(sizes[i, j]))
            for j, keeper in enumerate(outcome.names)
        }
        for i, loser in enumerate(outcome.names)
    }


def _pairs(outcome: Outcome) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]]:
    count = len(outcome.names)
    sizes = outcome.features.sizes
    pairs, shorter = np.zeros((count, count), np.int64), np.zeros((count, count), np.int64)
    for block in outcome.found.all_edges.blocks():
        first, second = outcome.sources[block.pairs].T
        np.add.at(pairs, (first, second), 1)
        np.add.at(shorter, (first, second), sizes[block.pairs].min(axis=1))
    return _symmetric(outcome.names, pairs), _symmetric(outcome.names, shorter)


def _symmetric(names: Sequence[str], matrix: np.ndarray) -> dict[str, dict[str, int]]:
    whole = matrix + matrix.T - np.diag(np.diag(matrix))
    return {
        first: {second: int(whole[i, j]) for j, second in enumerate(names)}
        for i, first in enumerate(names)
    }


def _duplicated(outcome: Outcome) -> dict[str, dict[str, Amount]]:
    texts = np.unique(outcome.features.hashes, axis=0, return_inverse=True)[1].reshape(-1)
    matrix: dict[str, dict[str, Amount]] = {name: {} for name in outcome.names}
    for number, name in enumerate(outcome.names):
        own = outcome.sources == number
        copies = np.bincount(texts[own & ~outcome.filtered], minlength=len(texts))
        near = np.zeros(len(texts), dtype=bool)
        for block in outcome.found.all_edges.blocks():
            low, high = block.pairs[texts[block.pairs[:, 0]] != texts[block.pairs[:, 1]]].T
            near[texts[low[own[high]]]] = True
            near[texts[high[own[low]]]] = True
        for other_number, other in enumerate(outcome.names):
            needed = 2 if other == name else 1  # another document than itself
            met = near[texts] | (copies[texts] >= needed)
            theirs = ~outcome.filtered & (outcome.sources == other_number)
            matrix[other][name] = _amount(outcome, theirs & met)
    return matrix
