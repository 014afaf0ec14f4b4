"""Compare two texts and mark the pieces that differ."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

_WORD = re.compile(r"\w+|\s+|[^\w\s]")


@dataclass(frozen=True)
class Piece:
    """A run of text; ``differs`` is True if the other text has something else there."""

    text: str
    differs: bool


@dataclass(frozen=True)
class Comparison:
    """Two texts as pieces."""

    title: str
    left: Sequence[Piece]
    right: Sequence[Piece]


def compare(title: str, left: str, right: str) -> Comparison:
    """Return the two texts as pieces, with different words, spaces and signs marked.

    Takes time quadratic in the number of words, so use it for excerpts.
    """
    first, second = _WORD.findall(left), _WORD.findall(right)
    pieces: tuple[list[Piece], list[Piece]] = ([], [])
    matcher = SequenceMatcher(None, first, second, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        for side, words in zip(pieces, (first[a:b], second[c:d]), strict=True):
            if words:
                side.append(Piece("".join(words), kind != "equal"))
    return Comparison(title, *pieces)
