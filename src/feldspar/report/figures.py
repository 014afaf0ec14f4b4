"""Draw lines, points and bands over one axis or side by side."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from feldspar.core.readable import number
from feldspar.core.student_t import half_width
from feldspar.report.canvas import ERROR_BARS, Drawing, Figure, drawing, plain_numbers
from feldspar.report.line_labels import Named, reserve, settle
from feldspar.report.palette import MARKERS, REFERENCE, series_colour

LARGEST_DRAWN = 1e100
"""Largest number that is drawn; with larger ones the margins of a figure would overflow."""
HOVER_POINTS = 240
"""Most points of a curve whose values a page shows."""


@dataclass(frozen=True)
class Series:
    """One curve of a figure."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    style: Literal["line", "points", "markers", "faint"] = "line"
    half_widths: Sequence[float] | None = None
    """Half of the interval of each value."""
    is_reference: bool = False
    """True for what the other curves are compared with: it is grey."""
    colour: int | None = None
    """Number of its colour, to share one; by default each curve that is not grey has its own."""


@dataclass(frozen=True)
class Band:
    """A shaded region between two lines; it has gaps where one of them is not finite."""

    label: str
    x: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    colour: int = 0


@dataclass(frozen=True)
class Panel:
    """One of several drawings side by side, with its own axes."""

    series: Sequence[Series]
    x_label: str
    y_label: str
    bands: Sequence[Band] = ()
    log_x: bool = False
    log_y: bool = False
    ticks: dict[float, str] | None = None
    """Names of the places on the x axis, where these are no numbers."""


def number_of(value: Any) -> float:
    """Return a recorded value as a number that can be drawn; NaN for all others."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return found if abs(found) < LARGEST_DRAWN else math.nan


def half_widths_of(groups: Iterable[Sequence[float]]) -> list[float] | None:
    """Return half the 95 % interval of the mean of each group; None where no group has one."""
    found = [half_width(group) for group in groups]
    known = [math.nan if half is None or not math.isfinite(half) else half for half in found]
    return known if any(map(math.isfinite, known)) else None


def line_figure(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    bands: Sequence[Band] = (),
    ticks: dict[float, str] | None = None,
) -> Figure:
    """Return lines, points and bands over a common x axis."""
    return panel_figure(title, [Panel(series, x_label, y_label, bands, log_x, log_y, ticks)])


def panel_figure(title: str, panels: Sequence[Panel]) -> Figure:
    """Return drawings side by side. Names stand at the ends of the curves, outside the axes."""
    with drawing(len(panels)) as drawn:
        named = [_draw(axes, panel) for axes, panel in zip(drawn.axes, panels, strict=True)]
        texts = [reserve(axes, own) for axes, own in zip(drawn.axes, named, strict=True)]
        drawn.place()
        for axes, own, written in zip(drawn.axes, named, texts, strict=True):
            settle(axes, own, written)
        hover = [_hover(drawn, axes, panel) for axes, panel in zip(drawn.axes, panels, strict=True)]
        return drawn.finish(title, _description(panels), hover)


def colours_of(series: Sequence[Series]) -> list[str]:
    """Return the colour of each curve: grey for references, else its own."""
    colours, number_ = [], 0
    for item in series:
        if item.is_reference:
            colours.append(REFERENCE.light)
        elif item.colour is not None:
            colours.append(series_colour(item.colour))
        else:
            colours.append(series_colour(number_))
            number_ += 1
    return colours


def _draw(axes: Any, panel: Panel) -> list[Named]:
    """Draw a panel; return its curves that have a name."""
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    named = []
    for band in panel.bands:
        ends = zip(band.low, band.high, strict=True)
        finite = [math.isfinite(low) and math.isfinite(high) for low, high in ends]
        colour = series_colour(band.colour)
        area = axes.fill_between(
            band.x, band.low, band.high, where=finite, color=colour, alpha=0.2, linewidth=0
        )
        middles = [(a + b) / 2 for a, b in zip(band.low, band.high, strict=True)]
        if band.label and any(finite):
            named.append(Named(band.label, area, _last_finite(middles)))
    marks = 0
    for item, colour in zip(panel.series, colours_of(panel.series), strict=True):
        line = _curve(axes, item, colour, MARKERS[marks % len(MARKERS)])
        marks += item.style in ("points", "markers")
        if item.label and any(map(math.isfinite, item.y)):
            named.append(Named(item.label, line, _last_finite(item.y)))
    _scale(axes, panel)
    return named


def _curve(axes: Any, item: Series, colour: str, marker: str) -> Any:
    styles: dict[str, dict[str, Any]] = {
        "line": {},
        "points": {"marker": marker, "linewidth": 1.5},
        "markers": {"marker": marker, "linestyle": "none"},
        "faint": {"linewidth": 0.8, "alpha": 0.35},
    }
    dashes = {"linestyle": (0, (4, 2))} if item.is_reference and item.style == "line" else {}
    height = 1.9 if item.is_reference else 2  # references lie behind the other curves
    [line] = axes.plot(item.x, item.y, color=colour, zorder=height, **styles[item.style], **dashes)
    if item.half_widths is not None:
        axes.errorbar(item.x, item.y, item.half_widths, ecolor=colour, **ERROR_BARS)
    return line


def _scale(axes: Any, panel: Panel) -> None:
    """Choose the kinds of both axes and their numbers."""
    for is_log, values, axis, set_scale in (
        (panel.log_x, [x for item in panel.series for x in item.x], axes.xaxis, axes.set_xscale),
        (panel.log_y, [y for item in panel.series for y in item.y], axes.yaxis, axes.set_yscale),
    ):
        positive = [value for value in values if value > 0 and math.isfinite(value)]
        if is_log and positive:
            set_scale("log")
            plain_numbers(axis, log=True, span=(min(positive), max(positive)))
    least = min((y for item in panel.series for y in item.y if math.isfinite(y)), default=0.0)
    if least >= 0 and axes.get_ylim()[0] < 0:
        axes.set_ylim(bottom=0)  # an interval may reach below zero, the quantity cannot
    if panel.ticks is not None:
        axes.set_xticks(list(panel.ticks), list(panel.ticks.values()))


def _hover(drawn: Drawing, axes: Any, panel: Panel) -> dict[str, Any]:
    """Return places of the points on the SVG, and what to say of each."""
    box, height = axes.get_window_extent(), drawn.canvas.bbox.height
    curves = []
    for item, colour in zip(panel.series, colours_of(panel.series), strict=True):
        if item.style == "faint":
            continue
        step = max(1, math.ceil(len(item.x) / HOVER_POINTS))
        points = []
        for index in sorted({*range(0, len(item.x), step), *([len(item.x) - 1] if item.x else [])}):
            x, y = item.x[index], item.y[index]
            if not (math.isfinite(x) and math.isfinite(y)):
                continue
            across, up = axes.transData.transform((x, y))
            if not (math.isfinite(across) and math.isfinite(up)):
                continue
            half = None if item.half_widths is None else item.half_widths[index]
            told = number(y) + (
                f" \u00b1 {number(half, 2)}" if half and math.isfinite(half) else ""
            )
            named = (panel.ticks or {}).get(x, number(x))
            points.append([round(float(across), 1), round(height - float(up), 1), named, told])
        if points:
            curves.append({"name": item.label, "colour": colour, "points": points})
    corners = [box.x0, height - box.y1, box.x1, height - box.y0]
    return {
        "box": [round(float(value), 1) for value in corners],
        "x": panel.x_label,
        "y": panel.y_label,
        "curves": curves,
    }


def _description(panels: Sequence[Panel]) -> str:
    """Describe the axes and the course of each curve, for readers who cannot see the figure."""
    words = []
    for panel in panels:
        words.append(f"{panel.y_label or 'value'} over {panel.x_label}.")
        for item in panel.series:
            finite = [(x, y) for x, y in zip(item.x, item.y, strict=True) if math.isfinite(y)]
            if item.style == "faint" or not finite:
                continue
            (first, begin), (last, end) = finite[0], finite[-1]
            name = f"{item.label}: " if item.label else ""
            words.append(
                f"{name}{number(begin)} at {number(first)}, {number(end)} at {number(last)}."
                if len(finite) > 1
                else f"{name}{number(end)} at {number(last)}."
            )
    return " ".join(words)


def _last_finite(values: Sequence[float]) -> float:
    return next(value for value in reversed(values) if math.isfinite(value))
