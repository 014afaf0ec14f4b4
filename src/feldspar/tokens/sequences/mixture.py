"""Choose the source of the n-th sample of a phase: a pure function without state or randomness.

The weights are integers w_s with sum W. The k-th sample of source s is due at the ideal time (2k+1)
W / (2 w_s). Samples are ordered by time; ties by the order of the sources. After n samples, source
s was drawn n w_s / W times, with an error of at most 1/2 + (w_s / W) S / 2 for S sources. All
arithmetic uses integers, so that all machines agree.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from math import lcm

import numpy as np

from feldspar.core.errors import InternalError

BLOCK_SAMPLES = 8192
_LARGEST_INT64 = 2**63 - 1


def exact(probability: float | Decimal | Fraction) -> Fraction:
    """Return a recipe's probability as the decimal number that was written, not its binary
    rounding."""
    if isinstance(probability, float):
        return Fraction(Decimal(repr(probability)))
    return Fraction(probability)


class MixtureSampler:
    """Order of sources for ``probabilities``; they are above 0 and need not sum to 1."""

    def __init__(self, probabilities: Sequence[float | Decimal | Fraction]) -> None:
        shares = [exact(probability) for probability in probabilities]
        if not shares or min(shares) <= 0:
            raise InternalError("a mixture needs at least one source, all with probability above 0")
        total = sum(shares)
        denominator = lcm(*((share / total).denominator for share in shares))
        self.weights = tuple(int(share / total * denominator) for share in shares)
        """Integers without a common factor, proportional to the probabilities."""
        self.period = denominator
        """Number of samples after which the order repeats: the sum of the weights."""
        common = lcm(*self.weights)
        # The due time of event k is (2k+1) of these, in units of W / (2 lcm).
        self._ticks = tuple(common // weight for weight in self.weights)
        self._block = lru_cache(maxsize=8)(self._sources_in_block)

    def counts_before(self, n: int) -> list[int]:
        """Return how often each source was drawn in samples 0 to n-1, in time independent of n."""
        periods, n = divmod(n, self.period)
        sources = len(self.weights)
        # The bound in the file's docstring, times 2 W: every count is at least this many.
        counts = [
            max(0, -((self.period + weight * sources - 2 * n * weight) // (2 * self.period)))
            for weight in self.weights
        ]
        for _ in range(n - sum(counts)):
            due = min(range(sources), key=lambda s: ((2 * counts[s] + 1) * self._ticks[s], s))
            counts[due] += 1
        return [
            count + periods * weight for count, weight in zip(counts, self.weights, strict=True)
        ]

    def sources_of(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return for the samples start to stop-1 the index of the source (i32) and its k (i64)."""
        if stop <= start:
            return np.empty(0, np.int32), np.empty(0, np.int64)
        first, last = start // BLOCK_SAMPLES, (stop - 1) // BLOCK_SAMPLES
        blocks = [self._block(number) for number in range(first, last + 1)]
        inside = slice(start - first * BLOCK_SAMPLES, stop - first * BLOCK_SAMPLES)
        sources, ordinals = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        return sources[inside], ordinals[inside]

    def _sources_in_block(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        start = number * BLOCK_SAMPLES
        before, after = self.counts_before(start), self.counts_before(start + BLOCK_SAMPLES)
        sources = np.repeat(
            np.arange(len(before), dtype=np.int32),
            [b - a for a, b in zip(before, after, strict=True)],
        )
        ordinals = np.concatenate(
            [np.arange(a, b, dtype=np.int64) for a, b in zip(before, after, strict=True)]
        )
        order = np.argsort(self._due_times(before, after, start), kind="stable")
        return sources[order], ordinals[order]

    def _due_times(self, before: list[int], after: list[int], start: int) -> np.ndarray:
        """Return the exact times of the events, source by source: i64 if they fit, else Python
        integers."""
        periods = start // self.period
        times = [
            (2 * (k - periods * weight) + 1) * tick
            for a, b, weight, tick in zip(before, after, self.weights, self._ticks, strict=True)
            for k in range(a, b)
        ]
        return np.array(times, np.int64 if max(times) <= _LARGEST_INT64 else object)


def named_sampler(probabilities: Mapping[str, Fraction]) -> tuple[list[str], MixtureSampler]:
    """Return the sources with a probability above 0, in order, and their sampler."""
    names = [name for name, probability in probabilities.items() if probability > 0]
    return names, MixtureSampler([probabilities[name] for name in names])
