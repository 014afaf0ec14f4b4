"""Leave out documents that share a run of words with an evaluation set.

Words are those of the cleaned text (lower case, no ASCII punctuation). Runs have 13 words, as in
the overlap checks of GPT-3 (2005.14165, appendix C) and PaLM. One shared run is enough.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from feldspar.core.bundled_items import evaluation_set_path
from feldspar.core.errors import UserError
from feldspar.core.files import sha256_of_file
from feldspar.core.streams import hash_integers
from feldspar.corpus.clean import cleaned, normalised
from feldspar.corpus.document import Tolerance
from feldspar.corpus.readers.evaluation import evaluation_items
from feldspar.recipe.sections.corpus import DecontaminateSettings, EvaluationSet

UNKNOWN = 0
"""The number of a word that no evaluation set holds."""


@dataclass
class Overlap:
    """The counts of one evaluation set, and of the documents that it removes."""

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
        """Return plain values for JSON."""
        return asdict(self)


class RunsOfWords:
    """The runs of words of several sets, to find the sets that a text overlaps.

    Runs are known by 64-bit hashes: of a billion runs of documents against ten million of the sets
    one in two thousand corpora would lose one document wrongly.
    """

    def __init__(self, words: int) -> None:
        self._words = words
        self._numbers: dict[str, int] = {}
        self._hashes: dict[str, np.ndarray] = {}

    def add(self, name: str, items: Sequence[str]) -> Overlap:
        """Add an evaluation set; return the counts of its items."""
        counts = Overlap()
        found = [np.empty(0, np.uint64)]
        for item in items:
            counts.items += 1
            split = words_of(item)
            counts.short_items += len(split) < self._words
            numbers = [self._numbers.setdefault(word, len(self._numbers) + 1) for word in split]
            found.append(self._runs(np.array(numbers, np.uint64)))
        self._hashes[name] = np.unique(np.concatenate(found))
        counts.ngrams = len(self._hashes[name])
        return counts

    def save(self, path: Path) -> None:
        """Write all runs into a file, split by white space, which words never hold."""
        names = json.dumps({"words": self._words, "sets": list(self._hashes)})
        np.savez(
            path,
            *self._hashes.values(),
            names=np.array(names),
            words=np.frombuffer(" ".join(self._numbers).encode("utf-8", "surrogatepass"), np.uint8),
        )

    @classmethod
    def load(cls, path: Path) -> "RunsOfWords":
        """Read the file that ``save`` wrote."""
        with np.load(path) as stored:
            names = json.loads(str(stored["names"]))
            runs = cls(names["words"])
            words = stored["words"].tobytes().decode("utf-8", "surrogatepass").split()
            runs._numbers = {word: number for number, word in enumerate(words, start=1)}
            runs._hashes = {name: stored[f"arr_{n}"] for n, name in enumerate(names["sets"])}
        return runs

    def sieve(self) -> "Sieve":
        """Return a sieve with counts of its own."""
        return Sieve(self)

    def overlapping(self, text: str) -> list[str]:
        """Return the names of the sets that share a run of words with ``text``."""
        known = self._numbers
        numbers = np.array([known.get(word, UNKNOWN) for word in words_of(text)], np.uint64)
        # Only stretches of words that some set holds can be a run: most of a text is skipped.
        runs = self._runs(numbers, _all_known(numbers != UNKNOWN, self._words))
        if not len(runs):
            return []
        return [name for name, hashes in self._hashes.items() if _any_in(runs, hashes)]

    def _runs(self, numbers: np.ndarray, starts: np.ndarray | None = None) -> np.ndarray:
        """Hash the runs of words at ``starts``, or all of them."""
        if starts is None:
            starts = np.arange(max(0, len(numbers) - self._words + 1))
        hashes = np.zeros(len(starts), np.uint64)
        for place in range(self._words):
            hashes = hash_integers(hashes ^ hash_integers(numbers[starts + place], 1), 0)
        return hashes


def words_of(text: str) -> list[str]:
    """Split a text into the words that are compared: NFC, lower case, no ASCII punctuation."""
    return cleaned(normalised(text, "nfc")).split()


def _all_known(known: np.ndarray, words: int) -> np.ndarray:
    """Find where runs of ``words`` true values begin."""
    if len(known) < words:
        return np.empty(0, np.int64)
    sums = np.concatenate([[0], np.cumsum(known)])
    return np.flatnonzero(sums[words:] - sums[:-words] == words)


def _any_in(values: np.ndarray, ordered: np.ndarray) -> bool:
    if not len(ordered):
        return False
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return bool((ordered[places] == values).any())


class Sieve:
    """A filter of tables: leaves out and counts documents that overlap an evaluation set."""

    def __init__(self, runs: RunsOfWords) -> None:
        self._runs = runs
        self.left_out: dict[str, dict[str, list[int]]] = {"sets": {}, "sources": {}}

    def clean(self, tables: Iterable[Any]) -> Iterator[Any]:
        """Yield tables of documents, in order, without the documents that overlap a set."""
        for table in tables:
            texts, sources = (table.column(name).to_pylist() for name in ("text", "source"))
            kept = [self._passes(text, source) for text, source in zip(texts, sources, strict=True)]
            yield table if all(kept) else table.filter(kept)

    def _passes(self, text: str, source: str) -> bool:
        sets = self._runs.overlapping(text)
        if sets:
            size = len(text.encode("utf-8"))
            for kind, name in [("sources", source), *(("sets", name) for name in sets)]:
                documents, held = self.left_out[kind].get(name, (0, 0))
                self.left_out[kind][name] = [documents + 1, held + size]
        return not sets


@dataclass(frozen=True)
class StoredRuns:
    """The runs of words in a file, for units that other processes run."""

    path: Path
    digest: str

    def load(self) -> RunsOfWords:
        """Read the runs, once in each process."""
        return _loaded(self)


@lru_cache(maxsize=1)
def _loaded(stored: StoredRuns) -> RunsOfWords:
    return RunsOfWords.load(stored.path)


class Decontaminator:
    """The evaluation sets of a corpus, and the counts of all documents that they remove."""

    def __init__(self, settings: DecontaminateSettings, tolerance: Tolerance) -> None:
        sets = {name: list(_items(name, item, tolerance)) for name, item in settings.sets.items()}
        self._runs = RunsOfWords(settings.ngram_words)
        self.counts = Decontamination(settings.ngram_words)
        for name, items in sets.items():
            self.counts.sets[name] = self._runs.add(name, items)

    def store(self, folder: Path) -> StoredRuns:
        """Write the runs below ``folder``."""
        path = folder / "evaluation.npz"
        self._runs.save(path)
        return StoredRuns(path, sha256_of_file(path))

    def add(self, left_out: Mapping[str, Mapping[str, list[int]]]) -> None:
        """Count what a ``Sieve`` left out."""
        for name, (documents, size) in left_out["sets"].items():
            self.counts.sets[name].documents += documents
            self.counts.sets[name].bytes += size
        for name, (documents, size) in left_out["sources"].items():
            source = self.counts.sources.setdefault(name, {"documents": 0, "bytes": 0})
            source["documents"] += documents
            source["bytes"] += size


def _items(name: str, settings: EvaluationSet, tolerance: Tolerance) -> Iterator[str]:
    count = 0
    path = evaluation_set_path(settings.path)
    for item in evaluation_items(name, path, settings.fields, tolerance):
        count += 1
        yield item
    if count == 0:
        raise UserError(f"evaluation set {name} holds no item", where=str(path))
