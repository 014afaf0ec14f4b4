"""Write the names of curves beside their ends, where they hide no curve."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

LABEL_COLUMNS = 24
"""Characters of a name in one line."""
LINE_POINTS = 12.0
GAP_POINTS = 3.0
MARK_POINTS, TEXT_POINTS = (5.0, 15.0), 19.0
"""Place of the short piece of the curve, and of the name, right of the axes."""


@dataclass
class Named:
    """A curve with a name, drawn on some axes; ``handle`` is its line or area."""

    text: str
    handle: Any
    end_y: float
    """The value at the curve's end."""


def reserve(axes: Any, named: Sequence[Named]) -> list[Any]:
    """Write the names right of the axes, in a place that makes room for them; return the texts."""
    return [
        axes.annotate(
            fill(item.text, LABEL_COLUMNS),
            (1, 0.5),
            xycoords="axes fraction",
            xytext=(TEXT_POINTS, 0),
            textcoords="offset points",
            va="center",
            ha="left",
            fontsize=9.5,
            annotation_clip=False,
        )
        for item in named
    ]


def settle(axes: Any, named: Sequence[Named], texts: Sequence[Any]) -> None:
    """Move each name to its curve's end, or as near as others leave room; mark it like the curve.

    The axes must have their final place.
    """
    box = axes.get_window_extent()
    x = axes.get_xlim()[1]
    wanted = [float(axes.transData.transform((x, item.end_y))[1]) for item in named]
    wanted = [min(max(y, box.y0), box.y1) for y in wanted]
    heights = [LINE_POINTS * (text.get_text().count("\n") + 1) + GAP_POINTS for text in texts]
    for item, text, y in zip(named, texts, spread(wanted, heights), strict=True):
        place = (y - box.y0) / box.height
        text.xy = (1, place)
        _mark(axes, item.handle, place, box.width)


def spread(wanted: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Return centres close to the wanted ones, in their order, that lie a height apart.

    Neighbours that would overlap form a block around the mean of their wanted places.
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    blocks: list[list[int]] = []

    def bottom(block: list[int]) -> float:
        ends, height = [], 0.0
        for index in block:
            ends.append(wanted[index] - height - heights[index] / 2)
            height += heights[index]
        return sum(ends) / len(ends)

    def top(block: list[int]) -> float:
        return bottom(block) + sum(heights[index] for index in block)

    for index in order:
        blocks.append([index])
        while len(blocks) > 1 and top(blocks[-2]) > bottom(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    centres = [0.0] * len(wanted)
    for block in blocks:
        place = bottom(block)
        for index in block:
            centres[index] = place + heights[index] / 2
            place += heights[index]
    return centres


def _mark(axes: Any, handle: Any, place: float, width_points: float) -> None:
    """Draw a short piece of the curve, or a patch of the area, before its name."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    first, last = (1 + points / width_points for points in MARK_POINTS)
    if isinstance(handle, Line2D):
        middle = (first + last) / 2
        is_line = handle.get_linestyle() != "None"
        mark = Line2D(
            [first, middle, last] if is_line else [middle],
            [place] * (3 if is_line else 1),
            transform=axes.transAxes,
            clip_on=False,
            markevery=[1] if is_line else None,
        )
        mark.update_from(handle)
        mark.set_transform(axes.transAxes)
        mark.set_clip_on(False)
        mark.set_markevery([1] if is_line else None)
    else:
        mark = Rectangle((first, place - 0.02), last - first, 0.04, transform=axes.transAxes)
        face = handle.get_facecolor()
        mark.set_facecolor(face if isinstance(face, tuple) else face[0])
        mark.set_edgecolor("none")
        mark.set_clip_on(False)
    mark.set_in_layout(False)
    axes.add_artist(mark)
    mark.set_clip_on(False)
