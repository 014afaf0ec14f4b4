"""Overlapping windows over a document that is longer than the context; each token is scored once.

The first window scores all its predictions. Each later one begins a stride (default: half a
context) after the one before it, and scores only tokens that the one before did not reach. So a
token beyond the first window has a context of at least a full context minus the stride. With a
stride of a full context the windows do not overlap.
"""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Predictions ``begin`` to ``end`` - 1 of one document, scored from ``first_scored`` on.

    Prediction i is made at input i; its label is input i + 1.
    """

    document: int
    begin: int
    end: int
    first_scored: int

    @property
    def length(self) -> int:
        """Number of inputs."""
        return self.end - self.begin


def windows_of(
    document: int, predictions: int, context_length: int, stride: int | None = None
) -> Iterator[Window]:
    """Yield the windows of a document with this number of predictions."""
    stride = stride or max(1, context_length // 2)
    begin = scored = 0
    while scored < predictions:
        end = min(begin + context_length, predictions)
        yield Window(document, begin, end, scored)
        begin, scored = begin + stride, end
