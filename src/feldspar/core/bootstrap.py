"""Confidence intervals by the bootstrap over documents, for ratios of sums over a text."""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
DRAWN_AT_ONCE = 1 << 20
"""Documents drawn in one call, which hold 16 MB with their values."""


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % interval of sum(numerators) / sum(denominators) over documents.

    Whole documents are drawn with replacement (percentile bootstrap; Efron and Tibshirani 1993,
    chapter 13), because tokens of one document are not independent. Each document gives one number
    to either sequence. Raises ValueError for sequences of different lengths or without documents.
    """
    if len(numerators) != len(denominators) or not numerators:
        raise ValueError(
            f"{len(numerators)} numerators and {len(denominators)} denominators; one of each is "
            "needed for every document"
        )
    generator = np.random.default_rng(seed)
    sums = resampled_sums(np.array([numerators, denominators], float), generator, RESAMPLES)
    return interval_of(sums[0] / sums[1])


def resampled_sums(
    values: np.ndarray, generator: np.random.Generator, resamples: int
) -> np.ndarray:
    """Return sums (rows, resamples) of ``values`` (rows, documents) over drawn documents.

    As many documents as there are are drawn with replacement, the same for all rows.
    """
    count = values.shape[1]
    sums = np.empty((len(values), resamples))
    lot = max(1, DRAWN_AT_ONCE // count)
    for first in range(0, resamples, lot):
        drawn = generator.integers(0, count, (min(lot, resamples - first), count))
        for own, row in zip(values, sums, strict=True):
            row[first : first + lot] = own[drawn].sum(axis=1)
    return sums


def interval_of(draws: np.ndarray) -> tuple[float, float]:
    """Return the interval that holds the share LEVEL of the draws, as much left out on each
    side."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)
