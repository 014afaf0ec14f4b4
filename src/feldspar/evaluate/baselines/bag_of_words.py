"""Baselines for labels: the most frequent label, and naive Bayes over the words of the sources."""

import re
from collections import Counter
from collections.abc import Sequence
from math import log

_WORD = re.compile(r"\w+")


class BagOfWords:
    """Multinomial naive Bayes with add-one smoothing, fitted on ``texts`` with one label each."""

    def __init__(self, texts: Sequence[str], labels: Sequence[str]) -> None:
        self._texts = Counter(labels)
        self._words: dict[str, Counter[str]] = {label: Counter() for label in self._texts}
        for text, label in zip(texts, labels, strict=True):
            self._words[label].update(words_of(text))
        self._vocabulary = set().union(*self._words.values())
        self._totals = {label: sum(counts.values()) for label, counts in self._words.items()}

    @property
    def majority(self) -> str:
        """Most frequent label; of equally frequent ones the first that was seen."""
        return self._texts.most_common(1)[0][0]

    def label(self, text: str) -> str:
        """Return the most likely label of a text; words that were never seen are ignored."""
        known = [word for word in words_of(text) if word in self._vocabulary]
        return max(self._texts, key=lambda label: self._log_probability(label, known))

    def _log_probability(self, label: str, words: Sequence[str]) -> float:
        counts, total = self._words[label], self._totals[label] + len(self._vocabulary)
        prior = log(self._texts[label])
        return prior + sum(log((counts[word] + 1) / total) for word in words)


def words_of(text: str) -> list[str]:
    """Return the words of a text, in lower case."""
    return _WORD.findall(text.lower())
