"""Two texts side by side, and which pieces of them differ."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

_WORD = re.compile(r"\w+|\s+|[^\w\s]")


@dataclass(frozen=True)
class Piece:
    """A run of text; ``differs`` where the other side has something else."""

    text: str
    differs: bool


@dataclass(frozen=True)
class Comparison:
    """Two texts in pieces."""

    title: str
    left: Sequence[Piece]
    right: Sequence[Piece]


def compare(title: str, left: str, right: str) -> Comparison:
    """Return the two texts, different words, spaces and signs marked; the pieces join to the texts.

    Quadratic in the number of words: for excerpts.
    """
    first, second = _WORD.findall(left), _WORD.findall(right)
    pieces: tuple[list[Piece], list[Piece]] = ([], [])
    matcher = SequenceMatcher(None, first, second, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        for side, words in zip(pieces, (first[a:b], second[c:d]), strict=True):
            if words:
                side.append(Piece("".join(words), kind != "equal"))
    return Comparison(title, *pieces)
