"""Name the colours of pages and figures, each for a light and for a dark surface.

The first six are told apart by readers with each kind of colour blindness, and each has a contrast
of at least 3 to 1 with its surface; text has at least 4.5 to 1 (WCAG 2.2, 1.4.11 and 1.4.3).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Colour:
    """One colour on a light and on a dark surface."""

    light: str
    dark: str


SERIES = (
    Colour("#2463c5", "#8fbaf5"),
    Colour("#cc6d10", "#d9793a"),
    Colour("#0c5a43", "#4be3a0"),
    Colour("#9333ea", "#9d5cf0"),
    Colour("#6b4206", "#f2c94c"),
    Colour("#e0287c", "#f0489a"),
)
MARKERS = ("o", "s", "^", "D", "v", "P")
"""The mark of each series, so that no reader needs the colour."""
SURFACE = Colour("#ffffff", "#12161d")
INK = Colour("#1d2430", "#e6e9ef")
QUIET = Colour("#4a5568", "#aab4c2")
GRID = Colour("#dde3ea", "#2b333f")
REFERENCE = Colour("#7d8794", "#8b96a5")
"""Colour of values that others are compared with."""
ALL = (*SERIES, SURFACE, INK, QUIET, GRID, REFERENCE)


def series_colour(number: int) -> str:
    """Return the colour of a series on a light surface; after six they come again."""
    return SERIES[number % len(SERIES)].light


def dark_rules() -> str:
    """Return the style of an SVG on a dark screen.

    Programs that know no style sheets show the light colours, which the elements carry themselves.
    Paper is never dark.
    """
    rules = [
        f'[style*="{what}: {colour.light}"]{{{what}:{colour.dark}!important}}'
        for colour in ALL
        for what in ("fill", "stroke")
    ]
    return "@media screen and (prefers-color-scheme:dark){" + "".join(rules) + "}"
