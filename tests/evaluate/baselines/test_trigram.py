"""The trigram against a dictionary, as a distribution, and where it must win."""

from collections import Counter, defaultdict
from math import log

import numpy as np
import pytest

from feldspar.core.errors import UserError
from feldspar.evaluate.baselines.trigram import TokenTrigram
from feldspar.evaluate.loss.text_loss import total_loss

END = 6
VOCABULARY = 7


def some_documents(seed: int, count: int, vocabulary: int = VOCABULARY - 1) -> list[np.ndarray]:
    """Tokens in which each depends on the two before it, some of them rare."""
    rng = np.random.default_rng(seed)
    documents = []
    for _ in range(count):
        tokens = [int(rng.integers(vocabulary))]
        for _ in range(int(rng.integers(1, 12))):
            guess = (3 * tokens[-1] + sum(tokens[-2:])) % vocabulary
            tokens.append(guess if rng.random() < 0.6 else int(rng.integers(vocabulary)))
        documents.append(np.array(tokens, np.uint16))
    return documents


def with_ends(documents: list[np.ndarray], end: int = END) -> list[np.ndarray]:
    return [np.array([end, *document, end]) for document in documents]


class NaiveTrigram:
    """Kneser-Ney by dictionaries and recursion, with given discounts."""

    def __init__(self, stretches: list[np.ndarray], discounts: np.ndarray) -> None:
        grams: Counter[tuple[int, ...]] = Counter()
        for stretch in stretches:
            tokens = [int(token) for token in stretch]
            for place in range(1, len(tokens)):
                context = self.context(tokens[:place])
                if len(context) == 2:
                    grams[(*context, tokens[place])] += 1
        self.counts: list[dict[tuple[int, ...], int]] = [{}, {}, dict(grams)]
        for order in (1, 0):
            kinds = Counter(gram[1:] for gram in self.counts[order + 1])
            self.counts[order] = dict(kinds)
        self.discounts = discounts
        self.followers = [defaultdict(list) for _ in range(3)]
        for order, counts in enumerate(self.counts):
            for gram, count in counts.items():
                self.followers[order][gram[:-1]].append(count)

    @staticmethod
    def context(before: list[int]) -> tuple[int, ...]:
        if before[-1] == END:
            return (END, END)
        return tuple(before[-2:])

    def probability(self, gram: tuple[int, ...]) -> float:
        if not gram:
            return 1 / VOCABULARY
        order = len(gram) - 1
        below = self.probability(gram[1:])
        counts = self.followers[order].get(gram[:-1])
        if not counts:
            return below

        def discount(count: int) -> float:
            return float(self.discounts[order][min(count, 3) - 1])

        count = self.counts[order].get(gram, 0)
        kept = count - discount(count) if count else 0.0
        return (kept + sum(map(discount, counts)) * below) / sum(counts)

    def nats(self, document: np.ndarray) -> float:
        tokens = [END, *(int(token) for token in document), END]
        return -sum(
            log(self.probability((*self.context(tokens[:place]), tokens[place])))
            for place in range(1, len(tokens))
        )


def test_equals_dictionaries() -> None:
    stretches = with_ends(some_documents(0, 60))
    # A stretch from the middle of a document: its first two tokens are context only.
    stretches += [np.array([1, 2, 3, END, 4, 4]), np.array([5, 1]), np.array([3]), np.array([END])]
    trigram = TokenTrigram.fit(stretches, VOCABULARY, END)
    naive = NaiveTrigram(stretches, trigram.discounts)
    documents = [*some_documents(1, 20), np.empty(0, np.uint16)]
    losses = trigram.document_losses(documents, [1] * len(documents))
    for loss, document in zip(losses, documents, strict=True):
        assert loss.nats == pytest.approx(naive.nats(document), rel=1e-10)
        assert loss.tokens == len(document) + 1


@pytest.mark.parametrize("vocab_size", [7, 50])
def test_is_a_distribution_after_any_context(vocab_size: int) -> None:
    documents = some_documents(2, 4000)
    trigram = TokenTrigram.fit(with_ends(documents), vocab_size, END)
    assert trigram.discounts.shape == (3, 3) and (trigram.discounts > 0).all()
    contexts = np.random.default_rng(0).integers(0, vocab_size, (40, 2))
    contexts[0] = (3, END)
    for context in contexts:
        every = np.arange(vocab_size)
        values = trigram.probabilities(np.tile(context, (vocab_size, 1)), every)
        assert values.min() > 0 and values.sum() == pytest.approx(1, abs=1e-12)


def test_what_lies_before_a_documents_end_is_forgotten() -> None:
    trigram = TokenTrigram.fit(with_ends(some_documents(3, 50)), VOCABULARY, END)
    contexts = np.array([[1, END], [END, END], [4, END]])
    assert len(set(trigram.probabilities(contexts, np.array([2, 2, 2])))) == 1


def test_discounts_are_the_estimates_of_chen_and_goodman() -> None:
    trigram = TokenTrigram.fit(with_ends(some_documents(4, 800)), 50, END)
    grams = Counter[tuple[int, ...]]()
    for tokens in with_ends(some_documents(4, 800)):
        for place in range(1, len(tokens)):
            context = NaiveTrigram.context(tokens[:place].tolist())
            if len(context) == 2:
                grams[(*context, int(tokens[place]))] += 1
    met = Counter(grams.values())
    share = met[1] / (met[1] + 2 * met[2])
    expected = [n - (n + 1) * share * met[n + 1] / met[n] for n in (1, 2, 3)]
    assert trigram.discounts[2] == pytest.approx(np.clip(expected, 0.01, np.arange(1, 4) - 0.01))


def test_the_trigram_learns_and_its_discounts_are_good() -> None:
    vocabulary, end = 201, 200
    train, test = some_documents(4, 3000, 200), some_documents(5, 300, 200)
    trigram = TokenTrigram.fit(with_ends(train, end), vocabulary, end)
    sizes = [1] * len(test)
    best = total_loss(trigram.document_losses(test, sizes))
    assert best.nats_per_token < 0.9 * log(vocabulary)
    for factor in (0.3, 0.6):
        worse = TokenTrigram.fit(with_ends(train, end), vocabulary, end)
        worse.discounts = trigram.discounts * factor
        assert total_loss(worse.document_losses(test, sizes)).nats > best.nats


def test_order_of_stretches_leaves_the_counts_alone() -> None:
    stretches = with_ends(some_documents(6, 30))
    one = TokenTrigram.fit(stretches, VOCABULARY, END)
    other = TokenTrigram.fit(stretches[::-1], VOCABULARY, END)
    document = some_documents(7, 1)
    assert one.document_losses(document, [1]) == other.document_losses(document, [1])


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(UserError, match="no tokens"):
        TokenTrigram.fit([np.array([1, 2])], VOCABULARY, END)
    with pytest.raises(UserError, match="not supported"):
        TokenTrigram.fit([np.arange(9)], 2**22, END)
