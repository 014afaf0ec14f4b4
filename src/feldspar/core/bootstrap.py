"""Confidence intervals by the bootstrap over documents, for ratios of sums over a text."""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95


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
    over, under = np.asarray(numerators, float), np.asarray(denominators, float)
    generator = np.random.default_rng(seed)
    count = len(over)
    ratios = np.empty(RESAMPLES)
    for index in range(RESAMPLES):
        times = np.bincount(generator.integers(0, count, count), minlength=count)
        ratios[index] = (times @ over) / (times @ under)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return float(low), float(high)
