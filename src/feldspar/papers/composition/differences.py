"""Differences of two arms over the seeds of training and over the held-out files."""

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from feldspar.core.bootstrap import interval_of, resampled_sums

Bits = Mapping[str, Sequence[float]]
"""Bits of each file, by kind of text."""
RESAMPLES = 2000


def seed_bits(bits: Bits, sizes: Mapping[str, Sequence[int]]) -> float:
    """Return the bits per byte of one run: the mean over the kinds of text, each counted once."""
    return fmean(sum(files) / sum(sizes[kind]) for kind, files in bits.items())


def document_interval(
    own: Sequence[Bits], other: Sequence[Bits], sizes: Mapping[str, Sequence[int]]
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the share by which ``own`` is lower than ``other``.

    Both hold the runs of an arm. Files are drawn again within each kind; the bits of a file are the
    mean over the runs.
    """
    generator = np.random.default_rng(0)
    totals = np.zeros((2, RESAMPLES))
    for kind, size in sizes.items():
        files = [np.mean([run[kind] for run in runs], axis=0) for runs in (own, other)]
        *bits, drawn_bytes = resampled_sums(np.array([*files, size]), generator, RESAMPLES)
        totals += np.array(bits) / drawn_bytes
    return interval_of(1 - totals[0] / totals[1])
