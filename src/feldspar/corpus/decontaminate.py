"""Documents that hold a run of words of an evaluation set are left out.

Words are those of the cleaned text (lower case, no ASCII punctuation), runs are of 13 words as
GPT-3's (2005.14165, appendix C) and PaLM's overlap checks count them. One shared run is enough.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from feldspar.core.errors import UserError
from feldspar.core.streams import hash_integers
from feldspar.corpus.clean import cleaned, normalised
from feldspar.corpus.document import Documents, Tolerance
from feldspar.corpus.readers.evaluation import evaluation_items
from feldspar.corpus.settings import DecontaminateSettings, EvaluationSet

UNKNOWN = 0
"""The number of a word that no evaluation set holds."""


@dataclass
class Overlap:
    """What one evaluation set holds, and what was left out because of it."""

    items: int = 0
    short_items: int = 0
    """Items of fewer words than a run: nothing can be said to overlap them."""
    ngrams: int = 0
    documents: int = 0
    bytes: int = 0


@dataclass
class Decontamination:
    """Counts by set and by source; a document that overlaps several sets counts in each set."""

    ngram_words: int
    sets: dict[str, Overlap] = field(default_factory=dict)
    sources: dict[str, dict[str, int]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class RunsOfWords:
    """The runs of words of several sets, and which sets a text overlaps.

    Runs are known by 64-bit hashes: of a billion runs of documents against ten million of the sets
    one in two thousand corpora would lose one document wrongly.
    """

    def __init__(self, sets: Mapping[str, list[str]], words: int) -> None:
        self._words = words
        self._numbers: dict[str, int] = {}
        self.overlaps: dict[str, Overlap] = {}
        self._hashes: dict[str, np.ndarray] = {}
        for name, items in sets.items():
            counts = self.overlaps[name] = Overlap()
            found = [np.empty(0, np.uint64)]
            for item in items:
                counts.items += 1
                split = words_of(item)
                counts.short_items += len(split) < words
                numbers = [self._numbers.setdefault(word, len(self._numbers) + 1) for word in split]
                found.append(self._runs(np.array(numbers, np.uint64)))
            self._hashes[name] = np.unique(np.concatenate(found))
            counts.ngrams = len(self._hashes[name])

    def overlapping(self, text: str) -> list[str]:
        """The names of the sets that share a run of words with ``text``."""
        known = self._numbers
        numbers = np.array([known.get(word, UNKNOWN) for word in words_of(text)], np.uint64)
        # Only stretches of words that some set holds can be a run: most of a text is skipped.
        runs = self._runs(numbers, _all_known(numbers != UNKNOWN, self._words))
        if not len(runs):
            return []
        return [name for name, hashes in self._hashes.items() if _any_in(runs, hashes)]

    def _runs(self, numbers: np.ndarray, starts: np.ndarray | None = None) -> np.ndarray:
        """Hashes of the runs at ``starts``, or of all."""
        if starts is None:
            starts = np.arange(max(0, len(numbers) - self._words + 1))
        hashes = np.zeros(len(starts), np.uint64)
        for place in range(self._words):
            hashes = hash_integers(hashes ^ hash_integers(numbers[starts + place], 1), 0)
        return hashes


def words_of(text: str) -> list[str]:
    """The words that count: NFC, lower case, without ASCII punctuation."""
    return cleaned(normalised(text, "nfc")).split()


def _all_known(known: np.ndarray, words: int) -> np.ndarray:
    """Where ``words`` values in a row are true: the first of each run."""
    if len(known) < words:
        return np.empty(0, np.int64)
    sums = np.concatenate([[0], np.cumsum(known)])
    return np.flatnonzero(sums[words:] - sums[:-words] == words)


def _any_in(values: np.ndarray, ordered: np.ndarray) -> bool:
    if not len(ordered):
        return False
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return bool((ordered[places] == values).any())


class Decontaminator:
    """Passes documents on, but those that overlap an evaluation set; counts what it left out."""

    def __init__(self, settings: DecontaminateSettings, tolerance: Tolerance) -> None:
        self._runs = RunsOfWords(
            {name: list(_items(name, item, tolerance)) for name, item in settings.sets.items()},
            settings.ngram_words,
        )
        self.counts = Decontamination(settings.ngram_words, self._runs.overlaps)

    def clean(self, documents: Documents) -> Documents:
        """The documents that overlap no set, in order."""
        for document in documents:
            names = self._runs.overlapping(document.text)
            if not names:
                yield document
                continue
            size = len(document.text.encode("utf-8"))
            for name in names:
                self.counts.sets[name].documents += 1
                self.counts.sets[name].bytes += size
            source = self.counts.sources.setdefault(document.source, {"documents": 0, "bytes": 0})
            source["documents"] += 1
            source["bytes"] += size


def _items(name: str, settings: EvaluationSet, tolerance: Tolerance) -> Iterator[str]:
    count = 0
    for item in evaluation_items(name, settings.path, settings.fields, tolerance):
        count += 1
        yield item
    if count == 0:
        raise UserError(f"evaluation set {name} holds no item", where=str(Path(settings.path)))
