"""Windows over a document longer than the context: they overlap, each token is scored once.

The first window scores all that it predicts. Each later one begins a stride (by default half a
context) after the one before it and scores only what that one did not reach, so a token beyond the
first window is predicted from at least a context less the stride. With a stride of a whole context
the windows do not overlap.
"""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Predictions ``begin`` to ``end`` - 1 of one document, scored from ``first_scored`` on.

    Prediction i is made at input i and has input i + 1 as its label.
    """

    document: int
    begin: int
    end: int
    first_scored: int

    @property
    def length(self) -> int:
        """Inputs."""
        return self.end - self.begin


def windows_of(
    document: int, predictions: int, context_length: int, stride: int | None = None
) -> Iterator[Window]:
    """Yield the windows of a document with so many predictions."""
    stride = stride or max(1, context_length // 2)
    begin = scored = 0
    while scored < predictions:
        end = min(begin + context_length, predictions)
        yield Window(document, begin, end, scored)
        begin, scored = begin + stride, end
