"""The order in which contenders take turns."""

from collections.abc import Sequence


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """Return the contenders in the order of a turn; the one that begins changes each time."""
    first = turn % len(names)
    return [*names[first:], *names[:first]]
