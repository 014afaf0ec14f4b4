"""Draw figures as SVG text, identical on all machines."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any, Literal

from feldspar.core.errors import missing_extra

LARGEST_DRAWN = 1e100
"""Largest number that is drawn; with larger ones the margins of a figure would overflow."""
WIDTH_INCHES, HEIGHT_INCHES = 6.4, 3.6
PANELS_WIDER = 1.4
"""A figure with several panels is this many times wider."""
NAME_COLUMNS = 12
"""Number of characters of a bar's name in one line, so that neighbours do not overlap."""


@dataclass(frozen=True)
class Series:
    """One line of a figure."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    style: Literal["line", "points", "markers", "faint"] = "line"


@dataclass(frozen=True)
class Band:
    """A shaded region between two lines; it has gaps where one of them is not finite."""

    label: str
    x: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """One of several drawings side by side, with its own axes."""

    series: Sequence[Series]
    x_label: str
    y_label: str


@dataclass(frozen=True)
class IntervalBar:
    """A bar with the interval of its value; ``half_width`` is None where there is no interval.

    A reference, which the other bars are compared with, is grey.
    """

    name: str
    value: float
    half_width: float | None
    is_reference: bool = False


@dataclass(frozen=True)
class Figure:
    """A drawn figure: title and SVG."""

    title: str
    svg: str


def number_of(value: Any) -> float:
    """Return a recorded value as a number that can be drawn; NaN for all others."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if abs(number) < LARGEST_DRAWN else math.nan


def line_figure(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    bands: Sequence[Band] = (),
) -> Figure:
    """Return lines, points and bands over a common x axis."""
    figure, axes = _new_axes(x_label, y_label)
    for band in bands:
        ends = zip(band.low, band.high, strict=True)
        finite = [math.isfinite(low) and math.isfinite(high) for low, high in ends]
        axes.fill_between(
            band.x, band.low, band.high, where=finite, label=band.label, alpha=0.2, linewidth=0
        )
    _draw(axes, series)
    if log_x:
        axes.set_xscale("log")
    if log_y and any(value > 0 for item in series for value in item.y):
        axes.set_yscale("log")
    if any(item.label for item in (*series, *bands)):
        axes.legend(frameon=False, fontsize=8)
    return Figure(title, _svg(figure))


def panel_figure(title: str, panels: Sequence[Panel]) -> Figure:
    """Return drawings side by side, each with its legend above, where it hides no curve."""
    figure, axes = _new_canvas(len(panels))
    for own, panel in zip(axes, panels, strict=True):
        _set_labels(own, panel.x_label, panel.y_label)
        _draw(own, panel.series)
        own.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
    return Figure(title, _svg(figure))


def bar_figure(title: str, bars: dict[str, float], y_label: str) -> Figure:
    """Return one bar for each name, with its value above it; long names take several lines."""
    figure, axes = _new_axes("", y_label)
    names = [fill(name, NAME_COLUMNS) for name in bars]
    drawn = axes.bar(names, list(bars.values()), width=0.6)
    axes.bar_label(drawn, fmt="%.4g", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.margins(y=0.15)
    return Figure(title, _svg(figure))


def grouped_bar_figure(title: str, groups: dict[str, dict[str, float]], y_label: str) -> Figure:
    """Return for each name one bar of each group, side by side; all groups have the same names."""
    figure, axes = _new_axes("", y_label)
    names = list(next(iter(groups.values())))
    width = 0.8 / len(groups)
    for number, (label, bars) in enumerate(groups.items()):
        places = [place + (number - (len(groups) - 1) / 2) * width for place in range(len(names))]
        axes.bar(places, [bars[name] for name in names], width=width, label=label)
    axes.set_xticks(range(len(names)), names, fontsize=8)
    if len(names) > 4:
        axes.tick_params(axis="x", labelrotation=30)
    axes.legend(frameon=False, fontsize=8)
    return Figure(title, _svg(figure))


def interval_bar_figure(title: str, bars: Sequence[IntervalBar], x_label: str) -> Figure:
    """Return one horizontal bar for each name, the first at the top, with interval and value."""
    figure, axes = _new_axes(x_label, "")
    places = range(len(bars))
    drawn = axes.barh(
        places,
        [bar.value for bar in bars],
        height=0.6,
        color=["0.6" if bar.is_reference else "C0" for bar in bars],
        xerr=[bar.half_width or 0.0 for bar in bars],
        error_kw={"ecolor": "0.25", "capsize": 3, "elinewidth": 1.2},
    )
    axes.bar_label(drawn, [f"{bar.value:+.3f}" for bar in bars], padding=4, fontsize=8)
    axes.set_yticks(places, [bar.name for bar in bars], fontsize=9)
    axes.invert_yaxis()
    axes.axvline(0, color="0.25", linewidth=0.8)
    axes.margins(x=0.15)
    axes.grid(visible=False, axis="y")
    return Figure(title, _svg(figure))


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
    """Return a matrix as colours with the values in the cells; ``log`` colours by log(1 + v)."""
    figure, axes = _new_axes(x_label, y_label)
    shades = [[math.log1p(value) if log else value for value in row] for row in values]
    axes.grid(visible=False)
    centres = [list(range(len(columns))), list(range(len(rows)))]
    axes.pcolormesh(*centres, shades, cmap="Blues", shading="nearest", edgecolors="white")
    axes.invert_yaxis()
    axes.set_xticks(
        range(len(columns)), columns, fontsize=8, rotation=30 if len(columns) > 4 else 0
    )
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    flat = [shade for row in shades for shade in row]
    middle = (min(flat) + max(flat)) / 2
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            ink = "white" if shades[i][j] > middle else "black"
            axes.text(
                j, i, f"{value:{format_spec}}", ha="center", va="center", fontsize=8, color=ink
            )
    return Figure(title, _svg(figure))


def _draw(axes: Any, series: Sequence[Series]) -> None:
    styles: dict[str, dict[str, Any]] = {
        "line": {"linewidth": 1.6},
        "points": {"marker": "o", "markersize": 4, "linewidth": 1.2},
        "markers": {"marker": "o", "markersize": 5, "linestyle": "none"},
        "faint": {"linewidth": 0.8, "alpha": 0.35, "color": "0.4"},
    }
    for item in series:
        axes.plot(item.x, item.y, label=item.label, **styles[item.style])


def _new_axes(x_label: str, y_label: str) -> tuple[Any, Any]:
    figure, [axes] = _new_canvas(1)
    _set_labels(axes, x_label, y_label)
    return figure, axes


def _new_canvas(columns: int) -> tuple[Any, list[Any]]:
    try:
        import matplotlib
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        raise missing_extra("matplotlib", "report") from None
    # A fixed salt gives the same element ids, and so the same bytes, each time.
    matplotlib.rcParams["svg.hashsalt"] = "feldspar"
    size = (WIDTH_INCHES * (1 if columns == 1 else PANELS_WIDER), HEIGHT_INCHES)
    figure = Canvas(figsize=size, layout="constrained")
    return figure, [figure.add_subplot(1, columns, index + 1) for index in range(columns)]


def _set_labels(axes: Any, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
