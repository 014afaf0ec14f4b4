"""After a run: the noise scale of all its steps with an error; how two noise scales go together.

Plain lists of numbers in, numbers out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from feldspar.core.errors import UserError


@dataclass(frozen=True)
class Ratio:
    """A ratio of sums and its standard error; NaN where the denominator is not positive."""

    value: float
    error: float


def noise_scale_of_steps(
    noise: Sequence[float], signal_sq: Sequence[float], blocks: int = 20
) -> Ratio:
    """Sum of noise over sum of signal, its error by leaving out one block of steps at a time.

    Blocks of consecutive steps keep what neighbouring steps have in common. Raises UserError for
    fewer steps than blocks, or fewer than two blocks.
    """
    if len(noise) != len(signal_sq) or not 2 <= blocks <= len(noise):
        raise UserError(
            "a noise scale with an error needs as many noises as signals, in two blocks or more",
            found=f"{len(noise)} and {len(signal_sq)} steps in {blocks} blocks",
        )
    pairs = np.array([noise, signal_sq], dtype=np.float64)
    sums = np.stack([part.sum(axis=1) for part in np.array_split(pairs, blocks, axis=1)])
    total = sums.sum(axis=0)
    rest = total - sums
    if total[1] <= 0 or (rest[:, 1] <= 0).any():
        return Ratio(math.nan if total[1] <= 0 else float(total[0] / total[1]), math.nan)
    without = rest[:, 0] / rest[:, 1]
    variance = (blocks - 1) / blocks * ((without - without.mean()) ** 2).sum()
    return Ratio(float(total[0] / total[1]), math.sqrt(variance))


@dataclass(frozen=True)
class Regression:
    """y = slope x through the origin, and Pearson's correlation."""

    slope: float
    correlation: float


def regress_through_origin(x: Sequence[float], y: Sequence[float]) -> Regression:
    """Of paired noise scales; pairs that are not finite are left out.

    Noise scales share the trend of training, which raises the correlation. Raises UserError for
    fewer than three pairs.
    """
    pairs = np.array([x, y], dtype=np.float64)
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    if pairs.shape[1] < 3:
        raise UserError("a regression needs at least three finite pairs", found=pairs.shape[1])
    slope = float((pairs[0] * pairs[1]).sum() / (pairs[0] ** 2).sum())
    return Regression(slope, float(np.corrcoef(pairs)[0, 1]))
