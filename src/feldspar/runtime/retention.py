"""Decide which checkpoints are kept: the newest, the first at or after each multiple, the best."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from feldspar.recipe.sections.runtime import KeepSettings


@dataclass(frozen=True)
class Candidate:
    """A checkpoint for the policy: its position in the run, and its metric, if any."""

    position: int
    metric: float | None = None


def kept(candidates: Sequence[Candidate], keep: KeepSettings, every: int | None) -> set[int]:
    """Return the positions of the checkpoints to keep.

    The answer stays the same after the others were deleted. Of equally good ones the earliest is
    the best.
    """
    ordered = sorted(candidates, key=lambda candidate: candidate.position)
    stay = {candidate.position for candidate in ordered[-keep.last :]}
    if every is not None:
        multiples_seen = {0}
        for candidate in ordered:
            multiple = candidate.position // every
            if multiple not in multiples_seen:
                multiples_seen.add(multiple)
                stay.add(candidate.position)
    best = best_of(ordered, keep)
    return stay if best is None else stay | {best}


def best_of(candidates: Sequence[Candidate], keep: KeepSettings) -> int | None:
    """Return the position of the checkpoint with the best metric; None if none has the metric."""
    sign = 1.0 if keep.best_is == "lowest" else -1.0
    measured = [
        (sign * candidate.metric, candidate.position)
        for candidate in candidates
        if candidate.metric is not None and not isnan(candidate.metric)
    ]
    return min(measured)[1] if measured and keep.best is not None else None
