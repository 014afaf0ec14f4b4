"""Compare two noise scales of the same run by a regression through the origin."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from feldspar.core.errors import UserError


@dataclass(frozen=True)
class Regression:
    """y = slope x through the origin, and Pearson's correlation."""

    slope: float
    correlation: float


def regress_through_origin(x: Sequence[float], y: Sequence[float]) -> Regression:
    """Fit y = slope x to paired noise scales; pairs that are not finite are left out.

    Noise scales have the trend of training in common, which increases the correlation. Raises
    UserError for fewer than three pairs.
    """
    pairs = np.array([x, y], dtype=np.float64)
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    if pairs.shape[1] < 3:
        raise UserError("a regression needs at least three finite pairs", found=pairs.shape[1])
    slope = float((pairs[0] * pairs[1]).sum() / (pairs[0] ** 2).sum())
    return Regression(slope, float(np.corrcoef(pairs)[0, 1]))
