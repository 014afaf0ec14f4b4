"""Differences of two arms over the seeds of training and over the held-out files."""

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

Bits = Mapping[str, Sequence[Sequence[float]]]
"""Bits by kind of text, seed and file."""
RESAMPLES = 2000


def bits_per_byte(bits: Bits, sizes: Mapping[str, Sequence[int]]) -> list[float]:
    """Return the bits per byte of each seed: the mean over the kinds of text, each counted once."""
    by_kind = [
        [sum(files) / sum(sizes[kind]) for files in by_seed] for kind, by_seed in bits.items()
    ]
    return [fmean(values) for values in zip(*by_kind, strict=True)]


def document_interval(
    own: Bits, other: Bits, sizes: Mapping[str, Sequence[int]]
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the share by which ``own`` is lower than ``other``.

    Files are drawn again within each kind; the bits of a file are the mean over the seeds.
    """
    draw = np.random.default_rng(0)
    totals = np.zeros((2, RESAMPLES))
    for kind, size in sizes.items():
        chosen = draw.integers(0, len(size), (RESAMPLES, len(size)))
        drawn_bytes = np.array(size)[chosen].sum(axis=1)
        for row, bits in enumerate((own, other)):
            files = np.mean(np.array(bits[kind]), axis=0)
            totals[row] += files[chosen].sum(axis=1) / drawn_bytes
    low, high = np.quantile(1 - totals[0] / totals[1], (0.025, 0.975))
    return float(low), float(high)
