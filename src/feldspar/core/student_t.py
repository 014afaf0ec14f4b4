"""Student's t: how wide an interval has to be when a mean rests on a few values."""

import math
from collections.abc import Sequence
from functools import cache

LEVEL = 0.95
"""The share of intervals that hold the true mean."""


def half_width(values: Sequence[float], level: float = LEVEL) -> float | None:
    """Half the interval around the mean of ``values``; None for a single value.

    Infinite where a value is not finite.
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
    """Half the 95 % interval around the difference of two means that are not paired.

    Both groups are taken to spread alike; None where neither has two values.
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
    """Return the t that a share ``level`` of Student's distribution lies within, on both sides of
    0.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(200):
        middle = (low + high) / 2
        if _share_within(middle, degrees) < level:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan(low)


def _share_within(angle: float, degrees: int) -> float:
    """P(|T| < t), exact for whole degrees of freedom, with t = sqrt(degrees) tan(angle).

    Abramowitz and Stegun, 26.7.3 and 26.7.4.
    """
    odd = degrees % 2 == 1
    sine, cosine = math.sin(angle), math.cos(angle)
    term, total = (cosine if odd else 1.0), 0.0
    for index in range(2 if odd else 1, degrees, 2):
        total += term
        term *= cosine**2 * index / (index + 1)
    return (angle + sine * total) * 2 / math.pi if odd else sine * total
