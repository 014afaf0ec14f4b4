"""Figures are the same on each drawing, whole XML, and ready for dark screens."""

import json
import math
import re
from collections.abc import Callable
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldspar.report.bars import Bar, bar_figure, grouped_bar_figure, heat_map
from feldspar.report.canvas import Figure
from feldspar.report.figures import Band, Panel, Series, half_widths_of, line_figure, panel_figure
from feldspar.report.line_labels import spread
from feldspar.report.palette import ALL, INK, QUIET, REFERENCE, SERIES, SURFACE

HOSTILE = "<b>&'\" $x_1$"
NAN = math.nan


def lines() -> Figure:
    series = [
        Series("raw", [1, 2, 3], [5.0, NAN, 4.0], "faint"),
        Series(HOSTILE, [1, 2, 3], [5.0, 4.5, 4.0], "points", [0.1, 0.2, NAN]),
        Series("law", [1, 3], [4.8, 4.1], is_reference=True),
    ]
    band = Band("band", [1, 2, 3], [1, 2, 3], [2, 3, NAN])
    return line_figure(HOSTILE, series, "x", "y", log_x=True, bands=[band])


def groups() -> Figure:
    halves = {"a": {"p": 1.0}, "b": {"p": 1.0}}
    return grouped_bar_figure("t", {"a": {"p": 1}, "b": {"p": 2}}, "y", halves)


FIGURES: dict[str, Callable[[], Figure]] = {
    "lines": lines,
    "panels": lambda: panel_figure("t", [Panel([Series("a", [1], [2])], "x", "y")] * 2),
    "bars": lambda: bar_figure("t", [Bar("a", 1, 0.1), Bar("b", -1, is_reference=True)], "x"),
    "groups": groups,
    "matrix": lambda: heat_map("t", ["a"], ["b", "c"], [[0, 1234]], "x", "y", log=True),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_the_same_twice_and_whole(name: str) -> None:
    first, second = FIGURES[name](), FIGURES[name]()
    assert first == second
    for text in (first.svg, first.standalone):
        root = ElementTree.fromstring(text)
        names = [each.tag.rpartition("}")[2] for each in root]
        assert root.get("role") == "img" and names[:2] == ["title", "desc"]
        assert len(root[1].text or "") > 5
        assert "http" not in re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    title = ElementTree.fromstring(first.standalone)[-1]
    assert "".join(title.itertext()).strip() == first.title


@pytest.mark.parametrize("name", FIGURES)
def test_each_colour_has_a_dark_one(name: str) -> None:
    style, _, drawn = FIGURES[name]().standalone.partition("</style>")
    colours = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]+)", drawn))
    assert colours and colours <= {colour.light for colour in ALL}
    for colour in ALL:
        assert f'[style*="stroke: {colour.light}"]{{stroke:{colour.dark}!important}}' in style


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrasts_are_those_of_wcag() -> None:
    for colours, least in (((*SERIES, REFERENCE), 3.0), ((INK, QUIET), 4.5)):
        for colour in colours:
            assert contrast(colour.light, SURFACE.light) >= least
            assert contrast(colour.dark, SURFACE.dark) >= least


def test_axes_have_no_offset_and_plain_numbers() -> None:
    y = [1e6 + step for step in range(5)]
    text = line_figure("t", [Series("", [0, 1, 2, 3, 4], y)], "x", "y").svg
    assert "1e6" not in text
    text = line_figure("t", [Series("", [1e12, 1e13], [1, 2])], "x", "y", log_x=True).svg
    assert ">1 T<" in text and "mathdefault" not in text


def test_hover_values_name_each_point_at_its_place() -> None:
    figure = lines()
    [panel] = json.loads(figure.hover)
    assert [curve["name"] for curve in panel["curves"]] == [HOSTILE, "law"]
    points = panel["curves"][0]["points"]
    assert points[0][2:] == ["1", "5 \u00b1 0.1"] and points[2][3] == "4"
    left, top, right, bottom = panel["box"]
    assert all(left <= x <= right and top <= y <= bottom for x, y, *_ in points)
    assert "<" not in figure.hover


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(1, 30)), min_size=1, max_size=8))
def test_names_do_not_overlap_and_keep_their_order(wanted: list[tuple[float, float]]) -> None:
    places, heights = [place for place, _ in wanted], [height for _, height in wanted]
    found = spread(places, heights)
    order = sorted(range(len(found)), key=lambda index: found[index])
    for below, above in pairwise(order):
        # Sums of eight numbers of at most 100, in float64.
        assert found[above] - found[below] >= (heights[below] + heights[above]) / 2 - 1e-9
        assert places[below] <= places[above]
    if len(places) == 1:
        assert found == pytest.approx(places)


def test_intervals_are_those_of_the_mean_and_lack_for_one_value() -> None:
    found = half_widths_of([[1.0, 2.0, 3.0], [1.0]])
    assert found is not None and found[0] == pytest.approx(2.484, abs=1e-3)
    assert math.isnan(found[1]) and half_widths_of([[1.0], [2.0]]) is None
