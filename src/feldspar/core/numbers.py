"""Numbers as JSON can hold them."""

import math


def finite(value: float) -> float | None:
    """None in place of what JSON has not: NaN and the infinities."""
    return value if math.isfinite(value) else None
