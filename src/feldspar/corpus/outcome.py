"""The outcome for each document: the arrays that reports and folders are made of."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from feldspar.corpus.deduplicate import Deduplication
from feldspar.corpus.features import Features
from feldspar.corpus.held_out import Copies
from feldspar.corpus.parts import PartFiles

JACCARD_DECIMALS = 6
"""Of similarities in files and reports."""


@dataclass(frozen=True)
class Outcome:
    """The outcome for each document; arrays and lists are indexed by document key."""

    names: Sequence[str]
    files: PartFiles
    features: Features
    reasons: Sequence[str]
    """Reasons of the filters, to which ``features.reasons`` refers."""
    found: Deduplication
    splits: Sequence[str]
    copies_in_train: dict[str, Copies] | None
    """By what would keep copies apart (``near``, ``exact``), of which one does; None: no split."""
    bad_records: dict[str, int]
    noted: dict[str, dict[str, int]]
    """Faults of records that were read in spite of them, counted by source and reason."""
    replaced_characters: dict[str, int]
    threshold: float
    local: bool

    @property
    def sources(self) -> np.ndarray:
        """The rank in ``names`` of each document's source."""
        return self.features.sources

    @property
    def filtered(self) -> np.ndarray:
        """Mask of the documents that a filter removes."""
        return self.features.reasons >= 0

    @property
    def kept(self) -> np.ndarray:
        """Mask of the documents that are kept."""
        return ~self.filtered & (self.found.keepers == np.arange(len(self.sources)))


def repeated_ids(outcome: Outcome) -> int:
    """Count the documents whose id another document has, by the 64-bit hashes of ids."""
    counts = np.unique(outcome.features.identities, return_counts=True)[1]
    return int(counts[counts > 1].sum())


def exact_copies(outcome: Outcome) -> np.ndarray:
    """Mark the dropped documents that the exact pass alone would drop.

    Of equal texts (within a source when the scope is local) one stands for all: the kept one, or
    else the first; the others are exact copies.
    """
    dropped = ~outcome.filtered & ~outcome.kept
    hashes = outcome.features.hashes
    scope = outcome.sources if outcome.local else np.zeros_like(outcome.sources)
    keys = np.flatnonzero(~outcome.filtered)
    order = keys[np.lexsort((keys, dropped[keys], scope[keys], hashes[keys, 1], hashes[keys, 0]))]
    copies = np.zeros(len(dropped), dtype=bool)
    same = (hashes[order[1:]] == hashes[order[:-1]]).all(axis=1)
    copies[order[1:]] = same & (scope[order[1:]] == scope[order[:-1]])
    return copies & dropped


def jaccard_or_none(value: float) -> float | None:
    """Round a similarity as in `edges.parquet`; None where it was not measured."""
    return None if np.isnan(value) else float(np.round(value, JACCARD_DECIMALS))


def length_counts(outcome: Outcome) -> dict[str, dict[str, dict[str, int]]]:
    """Count the documents read and kept of each source by length.

    A length is given by the largest power of two not above the UTF-8 bytes of the text, in bytes;
    empty texts by 0.
    """
    sizes = outcome.features.sizes
    # frexp is exact, unlike a logarithm: size = m * 2^e with 1/2 <= m < 1.
    floors = np.where(sizes > 0, 1 << np.maximum(np.frexp(sizes.astype(float))[1] - 1, 0), 0)
    counts = {}
    for number, name in enumerate(outcome.names):
        own = outcome.sources == number
        counts[name] = {
            "read": _histogram(floors[own]),
            "kept": _histogram(floors[own & outcome.kept]),
        }
    return counts


def _histogram(floors: np.ndarray) -> dict[str, int]:
    values, counts = np.unique(floors, return_counts=True)
    return {
        str(value): count for value, count in zip(values.tolist(), counts.tolist(), strict=True)
    }
