"""Sorted runs of integer rows on disk: cut into ranges, and one range read from all of them.

A run is an array (columns, rows) in a .npy file, sorted by its columns in order. Each shuffle has
two steps: units write runs, then other units read one range of all runs. Ranges depend on the rows
and on the size asked for, never on the number of workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Cut = tuple[np.generic, ...] | None
"""The last row, by its leading columns, of a range; None is beyond all rows."""

_SAMPLES = 16
"""Rows looked at in each run for each range: sizes are then right within about a sixteenth."""


@dataclass(frozen=True)
class Range:
    """The rows of ``runs`` after ``start``, up to ``end`` (inclusive)."""

    runs: Sequence[Path]
    start: Cut
    end: Cut

    def read(self) -> np.ndarray:
        """Read all rows of the range, sorted (columns, rows)."""
        pieces = []
        for path in self.runs:
            run = np.load(path, mmap_mode="r")
            first = 0 if self.start is None else _rows_up_to(run, self.start)
            last = run.shape[1] if self.end is None else _rows_up_to(run, self.end)
            pieces.append(np.array(run[:, first:last]))
        return sorted_rows(np.concatenate(pieces, axis=1))

    @property
    def name(self) -> str:
        """Name the range, for digests."""
        return f"{self.start} to {self.end}"


def sorted_rows(rows: np.ndarray) -> np.ndarray:
    """Sort rows (columns, n) by their columns."""
    order = np.argsort(rows[0])
    leading = rows[0][order]
    tied = np.zeros(len(order), dtype=bool)
    tied[1:] = leading[1:] == leading[:-1]
    tied[:-1] |= tied[1:]
    # Few of the rows that are sorted most, by hashes, need the slow way.
    among = order[tied]
    order[tied] = among[np.lexsort(rows[::-1, among])]
    return rows[:, order]


def without_repeats(rows: np.ndarray, columns: int) -> np.ndarray:
    """Keep the first of sorted rows (columns, n) that share their first ``columns``."""
    new = np.ones(rows.shape[1], dtype=bool)
    new[1:] = (rows[:columns, 1:] != rows[:columns, :-1]).any(axis=0)
    return rows[:, new]


def ranges(runs: Sequence[Path], rows: int, leading: int) -> list[Range]:
    """Cut the runs into ranges of about ``rows`` rows.

    Rows that agree in their ``leading`` columns are never cut apart, however many they are.
    """
    if not runs:
        return []
    step = max(1, rows // (_SAMPLES * len(runs)))
    samples = sorted_rows(
        np.concatenate(
            [np.array(np.load(path, mmap_mode="r")[:leading, step - 1 :: step]) for path in runs],
            axis=1,
        )
    )
    chosen = without_repeats(samples[:, max(1, rows // step) - 1 :: max(1, rows // step)], leading)
    ends: list[Cut] = [*(tuple(cut) for cut in chosen.T), None]
    return [Range(runs, start, end) for start, end in zip([None, *ends[:-1]], ends, strict=True)]


def _rows_up_to(run: np.ndarray, cut: tuple[np.generic, ...]) -> int:
    low, high = 0, run.shape[1]
    for column, value in zip(run, cut, strict=False):
        segment = column[low:high]
        low, high = (
            low + int(np.searchsorted(segment, value, "left")),
            low + int(np.searchsorted(segment, value, "right")),
        )
    return high
