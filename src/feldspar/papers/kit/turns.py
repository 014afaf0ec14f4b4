"""Times of several contenders that take turns, so that a slow minute of the machine meets all."""

from collections.abc import Callable, Mapping, Sequence

WARM_UP = 2
"""Turns of each contender that are left out."""


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """Return the contenders in the order of a turn; the one that begins changes each time."""
    first = turn % len(names)
    return [*names[first:], *names[:first]]


def seconds_in_turn(steps: Mapping[str, Callable[[], float]], turns: int) -> dict[str, list[float]]:
    """Return the seconds that each of ``steps`` reports, ``turns`` times.

    The contender that begins changes from turn to turn.
    """
    names = list(steps)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(WARM_UP + turns):
        for name in rotated(names, turn):
            taken = steps[name]()
            if turn >= WARM_UP:
                seconds[name].append(taken)
    return seconds
