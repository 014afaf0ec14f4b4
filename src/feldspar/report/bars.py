"""Draw bars with their values and intervals, bars in groups, and matrices."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

from feldspar.core.readable import number, with_interval
from feldspar.report.canvas import ERROR_BARS, Drawing, Figure, drawing
from feldspar.report.line_labels import Named, reserve, settle
from feldspar.report.palette import INK, QUIET, REFERENCE, series_colour

NAME_COLUMNS = 26
"""Characters of a bar's name in one line."""
BAR_INCHES, ROOM_INCHES = 0.34, 0.75
"""Height of a bar with its gap, and of the axis below all bars."""
DARKEST = 0.5
"""Opacity of a matrix's largest value, on which text can still be read."""


@dataclass(frozen=True)
class Bar:
    """A bar with the interval of its value; ``half_width`` is None where there is no interval.

    A reference, which the other bars are compared with, is grey.
    """

    name: str
    value: float
    half_width: float | None = None
    is_reference: bool = False


def bar_figure(title: str, bars: Sequence[Bar], x_label: str, *, sign: bool = False) -> Figure:
    """Return one horizontal bar for each name, the first at the top, with interval and value."""
    names = [fill(bar.name, NAME_COLUMNS) for bar in bars]
    lines = sum(max(1, 0.6 * (name.count("\n") + 1)) for name in names)
    with drawing(height=BAR_INCHES * lines + ROOM_INCHES) as drawn:
        [axes] = drawn.axes
        axes.set_xlabel(x_label)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        for place, bar in enumerate(bars):
            colour = REFERENCE.light if bar.is_reference else series_colour(0)
            half = bar.half_width or 0.0
            axes.barh(place, bar.value, height=0.62, color=colour)
            if half:
                axes.errorbar(bar.value, place, xerr=half, ecolor=INK.light, **ERROR_BARS)
            axes.annotate(
                with_interval(bar.value, bar.half_width, sign=sign),
                (max(bar.value + half, 0), place),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=9.5,
                fontweight="normal" if bar.is_reference else "bold",
            )
        axes.set_yticks(range(len(bars)), names)
        axes.tick_params(axis="y", labelcolor=INK.light)
        axes.invert_yaxis()
        axes.axvline(0, color=QUIET.light, linewidth=0.8)
        axes.margins(x=0.02)
        drawn.place()
        words = (
            f"{bar.name}: {with_interval(bar.value, bar.half_width, sign=sign)}" for bar in bars
        )
        return drawn.finish(title, f"{x_label}. " + "; ".join(words) + ".")


def grouped_bar_figure(
    title: str,
    groups: Mapping[str, Mapping[str, float]],
    y_label: str,
    half_widths: Mapping[str, Mapping[str, float]] | None = None,
) -> Figure:
    """Return for each name one bar of each group, side by side; all groups have the same names."""
    names = list(next(iter(groups.values())))
    width = 0.8 / len(groups)
    with drawing() as drawn:
        [axes] = drawn.axes
        axes.set_ylabel(y_label)
        axes.grid(visible=False, axis="x")
        named = []
        for index, (label, bars) in enumerate(groups.items()):
            places = [n + (index - (len(groups) - 1) / 2) * width for n in range(len(names))]
            drawn_bars = axes.bar(
                places,
                [bars[name] for name in names],
                width=width * 0.92,
                color=series_colour(index),
            )
            if half_widths is not None:
                halves, values = half_widths[label], list(bars.values())
                ends = [halves[name] for name in names]
                axes.errorbar(places, values, ends, ecolor=INK.light, **ERROR_BARS)
            named.append(Named(label, drawn_bars[0], bars[names[-1]]))
        axes.set_xticks(range(len(names)), [fill(name, 12) for name in names])
        axes.axhline(0, color=QUIET.light, linewidth=0.8)
        if len(names) > 4:
            axes.tick_params(axis="x", labelrotation=30)
        texts = reserve(axes, named)
        drawn.place()
        settle(axes, named, texts)
        words = (
            f"{label}: " + ", ".join(f"{name} {number(value, 3)}" for name, value in bars.items())
            for label, bars in groups.items()
        )
        return drawn.finish(title, f"{y_label}. " + "; ".join(words) + ".")


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
    x_label: str,
    y_label: str,
    *,
    log: bool = False,
    format_spec: str = ",.0f",
) -> Figure:
    """Return a matrix as shades with the values in the cells; ``log`` shades by log(1 + v)."""
    shades = [[math.log1p(value) if log else value for value in row] for row in values]
    flat = [shade for row in shades for shade in row]
    low, high = min(flat), max(flat)
    with drawing(height=BAR_INCHES * len(rows) + ROOM_INCHES + 0.5) as drawn:
        [axes] = drawn.axes
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        for i, row in enumerate(values):
            for j, value in enumerate(row):
                share = (shades[i][j] - low) / (high - low) if high > low else 0.0
                _cell(drawn, j, i, DARKEST * share)
                axes.text(j, i, f"{value:{format_spec}}", ha="center", va="center", fontsize=9.5)
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xticks(range(len(columns)), columns, rotation=30 if len(columns) > 4 else 0)
        axes.set_yticks(range(len(rows)), rows)
        drawn.place()
        words = (
            f"{name}: "
            + ", ".join(f"{c} {v:{format_spec}}" for c, v in zip(columns, row, strict=True))
            for name, row in zip(rows, values, strict=True)
        )
        return drawn.finish(title, "; ".join(words) + ".")


def _cell(drawn: Drawing, column: int, row: int, opacity: float) -> None:
    from matplotlib.patches import Rectangle

    colour = (series_colour(0), round(opacity, 3))
    cell = Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, facecolor=colour, linewidth=0)
    drawn.axes[0].add_patch(cell)
