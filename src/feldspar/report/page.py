"""Render one self-contained HTML page of sections; all text is escaped.

Its template, style and script are the files ``page.html``, ``page.css`` and ``page.js`` beside this
one. A policy in the page admits this script alone, and no address.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal

from feldspar.core.errors import missing_extra
from feldspar.report.canvas import Figure
from feldspar.report.palette import GRID, INK, QUIET, SERIES, SURFACE

PROSE_LETTERS = 32
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


@dataclass(frozen=True)
class Table:
    """A table; cells are aligned as numbers, but for the first of a row and columns of prose."""

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]

    @property
    def prose(self) -> list[bool]:
        """Tell for each column whether it holds sentences."""
        columns = range(len(self.header))
        cells = [[str(row[column]) for row in self.rows if column < len(row)] for column in columns]
        return [any(len(text) > PROSE_LETTERS and " " in text for text in own) for own in cells]


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs, tables, figures, preformatted texts and comparisons, in this
    order."""

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = field(default=(), repr=False)
    texts: Sequence[str] = field(default=(), repr=False)
    comparisons: Sequence[Comparison] = field(default=(), repr=False)
    folded: bool = False
    """True if the texts are long, so that a reader opens them."""


@dataclass(frozen=True)
class Fact:
    """A name and a value of the card, with a note in small letters."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Card:
    """Facts that a reader wants to know first."""

    verdict: str
    """A word or two; empty for none."""
    tone: Literal["good", "warning", "bad", "neutral"]
    headline: str
    facts: Sequence[Fact]


def render_page(
    title: str,
    subtitle: str,
    sections: Sequence[Section],
    card: Card | None = None,
    refresh_seconds: int = 0,
) -> str:
    """Return the page as HTML without external resources.

    With ``refresh_seconds``, the open page loads itself again after so many seconds. Raises
    SetupError if jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError:
        raise missing_extra("jinja2", "report") from None
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = _part("page.js")
    colours = {"surface": SURFACE, "ink": INK, "quiet": QUIET, "grid": GRID, "accent": SERIES[0]}
    return environment.from_string(_part("page.html")).render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        card=card,
        refresh_seconds=refresh_seconds,
        style=environment.from_string(_part("page.css")).render(colours),
        script=script,
        script_digest=script_digest(script),
    )


def script_digest(script: str) -> str:
    """Return the digest by which the page's policy admits its script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _part(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
