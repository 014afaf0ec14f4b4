"""Token trigram fitted on the tokens that a model saw: the result of counting alone.

Interpolated Kneser-Ney smoothing with three discounts for each order (Chen and Goodman 1998, "An
empirical study of smoothing techniques for language modeling", section 3); it is the strongest
n-gram smoothing in that comparison. Each order subtracts a discount from its counts and gives the
discounted mass to the order below. Lower orders count in how many *different* contexts a token
occurred. Below the last order is the uniform distribution, so no token is impossible. The discounts
are leave-one-out estimates from the numbers of n-grams that occurred once, twice, three and four
times (equation 17 there). On held-out documents they did better than a search on a part of the
training tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from feldspar.core.errors import UserError
from feldspar.evaluate.loss.text_loss import DocumentLoss
from feldspar.evaluate.text_model import with_separators

ORDER = 3
USUAL_DISCOUNTS = (0.7, 1.0, 1.3)
"""Discounts of n-grams that occurred once, twice and more often, if there are too few for an
estimate."""
LARGEST_VOCABULARY = 2**21
"""Three tokens must fit in one 63-bit integer."""


class TokenTrigram:
    """P(token | two tokens before); make one with ``TokenTrigram.fit``.

    Tokens before an end-of-document token are ignored.
    """

    def __init__(
        self,
        vocab_size: int,
        end_of_document_id: int,
        orders: "list[_Order]",
        discounts: np.ndarray,
    ) -> None:
        self.vocab_size = vocab_size
        self.end_of_document_id = end_of_document_id
        self.discounts = discounts
        """(order, 3): discounts of unigrams, bigrams, trigrams that occurred once, twice, more
        often."""
        self._orders = orders

    @classmethod
    def fit(
        cls, stretches: Iterable[np.ndarray], vocab_size: int, end_of_document_id: int
    ) -> "TokenTrigram":
        """Count the trigrams of ``stretches`` of tokens; no trigram crosses from one to the next.

        A whole document is a stretch that begins and ends with the end-of-document token. Give
        tokens that the model saw in several epochs once. Raises UserError if there is no trigram,
        and for more than 2^21 tokens.
        """
        if vocab_size > LARGEST_VOCABULARY:
            raise UserError(f"a trigram over {vocab_size:,} tokens is not supported")
        parts = [_trigram_keys(part, vocab_size, end_of_document_id) for part in stretches]
        keys = np.concatenate([np.empty(0, np.int64), *parts])
        if not len(keys):
            raise UserError("there are no tokens to fit a trigram on")
        orders = _count(keys, vocab_size)
        discounts = np.array([_discounts(order.counts) for order in orders])
        return cls(vocab_size, end_of_document_id, orders, discounts)

    def probabilities(self, contexts: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Return P of each of ``tokens`` (n,) after its two ``contexts`` (n, 2), the nearer one
        last."""
        first, second = contexts[:, 0].astype(np.int64), contexts[:, 1].astype(np.int64)
        keys = _keys(
            first, second, tokens.astype(np.int64), self.vocab_size, self.end_of_document_id
        )
        return self._probabilities(keys)

    def document_losses(
        self, documents: Sequence[np.ndarray], document_bytes: Sequence[int]
    ) -> list[DocumentLoss]:
        """Return the loss of each document, over the same tokens as a model's
        ``document_losses``."""
        losses = []
        for document, size in zip(documents, document_bytes, strict=True):
            tokens = with_separators(document, self.end_of_document_id, self.end_of_document_id)
            keys = _trigram_keys(tokens, self.vocab_size, self.end_of_document_id)
            nats = -float(np.log(self._probabilities(keys)).sum())
            losses.append(DocumentLoss(nats, len(keys), size))
        return losses

    def _probabilities(self, keys: np.ndarray) -> np.ndarray:
        found = _look_up(self._orders, keys, self.vocab_size)
        return _interpolate(found, self.discounts, self.vocab_size)


@dataclass(frozen=True)
class _Order:
    """N-grams of one order, sorted by key, and their contexts, also sorted."""

    keys: np.ndarray
    counts: np.ndarray
    contexts: np.ndarray
    totals: np.ndarray
    kinds: np.ndarray
    """(contexts, 3): number of n-grams after the context that occurred once, twice, more often."""


@dataclass(frozen=True)
class _Found:
    """Counts of some n-grams in one order: own count, total and kinds of the context; 0: unseen."""

    counts: np.ndarray
    totals: np.ndarray
    kinds: np.ndarray


def _trigram_keys(tokens: np.ndarray, vocab_size: int, end_of_document_id: int) -> np.ndarray:
    """Return the keys of a stretch's trigrams; its first token is only context."""
    wide = tokens.astype(np.int64)
    if len(wide) and wide[0] == end_of_document_id:
        wide = np.concatenate(
            [wide[:1], wide]
        )  # tokens before it are ignored, so complete the context
    return _keys(wide[:-2], wide[1:-1], wide[2:], vocab_size, end_of_document_id)


def _keys(
    first: np.ndarray, second: np.ndarray, token: np.ndarray, vocab_size: int, end_id: int
) -> np.ndarray:
    first = np.where(second == end_id, end_id, first)
    return (first * vocab_size + second) * vocab_size + token


def _count(keys: np.ndarray, vocab_size: int) -> list[_Order]:
    """Count unigrams, bigrams and trigrams; the lower orders count different contexts."""
    orders = []
    for order in range(ORDER, 0, -1):
        unique, counts = np.unique(keys, return_counts=True)
        contexts, starts = np.unique(unique // vocab_size, return_index=True)
        met = np.stack([counts == 1, counts == 2, counts > 2], axis=1)
        totals = np.add.reduceat(counts, starts)
        orders.append(
            _Order(unique, counts, contexts, totals, np.add.reduceat(met, starts, dtype=int))
        )
        keys = unique % vocab_size ** (order - 1)
    return orders[::-1]


def _look_up(orders: list[_Order], keys: np.ndarray, vocab_size: int) -> list[_Found]:
    """Return the counts of the trigrams ``keys`` in each order."""
    found = []
    for length, order in enumerate(orders, start=1):
        own = keys % vocab_size**length
        place, known = _places(order.keys, own)
        context, context_known = _places(order.contexts, own // vocab_size)
        found.append(
            _Found(
                np.where(known, order.counts[place], 0),
                np.where(context_known, order.totals[context], 0),
                np.where(context_known[:, None], order.kinds[context], 0),
            )
        )
    return found


def _places(sorted_values: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of each value and whether it exists; any index if it does not."""
    place = np.minimum(np.searchsorted(sorted_values, wanted), len(sorted_values) - 1)
    return place, sorted_values[place] == wanted


def _interpolate(found: list[_Found], discounts: np.ndarray, vocab_size: int) -> np.ndarray:
    """Return (count - discount + discounted mass x P of the order below) / total, lowest order
    first."""
    below = np.full(len(found[0].counts), 1 / vocab_size)
    for order, row in zip(found, discounts, strict=True):
        by_count = np.array([0.0, *row])
        kept = order.counts - by_count[np.minimum(order.counts, 3)]
        mixed = (kept + order.kinds @ row * below) / np.maximum(order.totals, 1)
        below = np.where(order.totals > 0, mixed, below)
    return below


def _discounts(counts: np.ndarray) -> np.ndarray:
    """Return D1, D2, D3+ of one order; a count minus its discount stays positive."""
    met = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(float)
    if not met.all():
        return np.array(USUAL_DISCOUNTS)
    share = met[0] / (met[0] + 2 * met[1])
    times = np.arange(1, 4)
    estimates = times - (times + 1) * share * met[1:] / met[:-1]
    return np.clip(estimates, 0.01, times - 0.01)
