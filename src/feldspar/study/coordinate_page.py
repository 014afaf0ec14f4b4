"""Write the folder of a coordinate check: JSON, one page, and one figure for each axis."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from feldspar.core.files import write_atomically
from feldspar.core.json_files import write_json
from feldspar.parametrization.coordinates import (
    FEED_FORWARD_OUTPUT,
    RESIDUAL_STREAM,
    STEPS,
    Axis,
    Measure,
)
from feldspar.report.canvas import Figure
from feldspar.report.figures import Series, line_figure
from feldspar.report.page import Card, Fact, Section, Table, render_page
from feldspar.study.coordinate_check import CoordinateCheck, Judgement

RESULT_NAME = "coordinate-check.json"
PAGE_NAME = "report.html"
HEADLINES: dict[Axis, Measure] = {
    "width": Measure(FEED_FORWARD_OUTPUT, "size", STEPS[-1]),
    "density": Measure(FEED_FORWARD_OUTPUT, "size", STEPS[-1]),
    "depth": Measure(RESIDUAL_STREAM, "change", STEPS[-1]),
}
"""Quantity in the figure of each axis, at the last step."""


def write_check(check: CoordinateCheck, folder: Path) -> None:
    """Write ``coordinate-check.json``, ``report.html`` and ``{width,density,depth}.svg``."""
    write_json(folder / RESULT_NAME, check.as_dict())
    for axis in check.by_axis:
        for figure in headline_figures(check, axis):
            write_atomically(folder / f"{axis}.svg", figure.standalone)
    write_atomically(folder / PAGE_NAME, check_page(check))


def check_page(check: CoordinateCheck) -> str:
    """Return the page: verdicts, then each axis with its slopes and figures."""
    axes = check.by_axis
    names = list(next(iter(axes.values())))
    rows = [
        [name, *("pass" if found[name].passed else "fail" for found in axes.values())]
        for name in names
    ]
    return render_page(
        f"Coordinate check of {check.recipe}",
        "",
        [
            Section(
                "Verdicts",
                [
                    (
                        "Pass: along the axis, the mean size of activations stays within "
                        "the bounds as the model grows. A slope is log2 of the size over "
                        "log2 of the axis, with sizes averaged over seeds."
                    )
                ],
                [Table(["parametrization", *axes], rows)],
            ),
            *(_axis_section(check, axis) for axis in axes),
        ],
        Card("", "neutral", check.outcome, [_verdict(name, axes) for name in names]),
    )


def _verdict(name: str, axes: Mapping[Axis, Mapping[str, Judgement]]) -> Fact:
    """Return what a card says of a parametrization."""
    failed = [axis for axis, found in axes.items() if not found[name].passed]
    return Fact(name, "fail" if failed else "pass", f"along {', '.join(failed or axes)}")


def headline_figures(check: CoordinateCheck, axis: Axis) -> list[Figure]:
    """Return figures with one line for each parametrization: sizes at the last step along
    an axis."""
    measure = HEADLINES[axis]
    series = [
        _series(label, one, measure) for label, one in _distinct(check.by_axis[axis].values())
    ]
    return _figures(f"{_title(measure)}, by {axis}", series, axis)


def _axis_section(check: CoordinateCheck, axis: Axis) -> Section:
    found = _distinct(check.by_axis[axis].values())
    figures = headline_figures(check, axis)
    for quantity, kind in ((FEED_FORWARD_OUTPUT, "size"), (RESIDUAL_STREAM, "change")):
        for label, one in found:
            measures = [item for item in one.sizes if item[:2] == (quantity, kind)]
            series = [_series(f"step {item.step}", one, item) for item in measures]
            what = _title(measures[0]).partition(" at ")[0]
            figures += _figures(f"{label}: {what}", series, axis)
    measures = list(dict.fromkeys(item for _, one in found for item in one.slopes))
    slopes = Table(
        ["slope of", *(label for label, _ in found)],
        [[str(item), *(_text(one.slopes[item]) for _, one in found)] for item in measures],
    )
    faults = Table(
        ["parametrization", "broken bound", "slope", "allowed"],
        [
            [label, str(bound.measure), _text(one.slopes[bound.measure]), bound.interval]
            for label, one in found
            for bound in one.faults
        ],
    )
    return Section(axis.capitalize(), tables=[faults, slopes], figures=figures)


def _distinct(judgements: Iterable[Judgement]) -> list[tuple[str, Judgement]]:
    """Return the judgements of different runs, each with the names of all candidates that
    share it."""
    groups: list[tuple[list[str], Judgement]] = []
    for one in judgements:
        names = next((names for names, other in groups if other.sizes == one.sizes), None)
        if names is None:
            groups.append(([one.candidate.name], one))
        else:
            names.append(one.candidate.name)
    return [(", ".join(names), one) for names, one in groups]


def _series(label: str, judgement: Judgement, measure: Measure) -> Series:
    x = [math.log2(value) for value in judgement.spread.values]
    y = [math.log2(size) for size in judgement.sizes[measure]]
    return Series(label, x, y, "points")


def _figures(title: str, series: list[Series], axis: Axis) -> list[Figure]:
    """Return the figures; none if every run diverged."""
    drawn = [item for item in series if any(map(math.isfinite, item.y))]
    if not drawn:
        return []
    return [line_figure(title, drawn, f"log2 {axis}", "log2 mean size")]


def _title(measure: Measure) -> str:
    return str(measure).capitalize()


def _text(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "none"
