"""Confidence intervals by Student's t for means of a few values."""

import math
from collections.abc import Sequence
from functools import cache

LEVEL = 0.95
"""The default probability that an interval holds the true mean."""


def half_width(values: Sequence[float], level: float = LEVEL) -> float | None:
    """Return half the interval around the mean of ``values``; None for a single value.

    The result is infinite where a value is not finite.
    """
    count = len(values)
    if count < 2:
        return None
    if not all(map(math.isfinite, values)):
        return math.inf
    mean = math.fsum(values) / count
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return t_quantile(count - 1, level) * math.sqrt(variance / count)


def unpaired_half_width(values: Sequence[float], others: Sequence[float]) -> float | None:
    """Return half the 95 % interval around the difference of two unpaired means.

    Both groups are assumed to have the same variance. None where neither has two values.
    """
    degrees = len(values) + len(others) - 2
    if degrees < 1:
        return None
    squares = 0.0
    for group in (values, others):
        mean = math.fsum(group) / len(group)
        squares += math.fsum((value - mean) ** 2 for value in group)
    variance = squares / degrees * (1 / len(values) + 1 / len(others))
    return t_quantile(degrees) * math.sqrt(variance)


@cache
def t_quantile(degrees: int, level: float = LEVEL) -> float:
    """Return the t such that -t to t holds a share ``level`` of Student's distribution."""
    low, high = 0.0, math.pi / 2
    for _ in range(200):
        middle = (low + high) / 2
        if _share_within(middle, degrees) < level:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan(low)


def _share_within(angle: float, degrees: int) -> float:
    """Return P(|T| < t), exact for whole degrees of freedom, with t = sqrt(degrees) tan(angle).

    Source: Abramowitz and Stegun, 26.7.3 and 26.7.4.
    """
    odd = degrees % 2 == 1
    sine, cosine = math.sin(angle), math.cos(angle)
    term, total = (cosine if odd else 1.0), 0.0
    for index in range(2 if odd else 1, degrees, 2):
        total += term
        term *= cosine**2 * index / (index + 1)
    return (angle + sine * total) * 2 / math.pi if odd else sine * total
