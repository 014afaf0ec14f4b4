"""Draw the curves of one or more runs, each under a title that says what it shows."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median

from feldspar.core.readable import amount, number, precise
from feldspar.report.canvas import Figure
from feldspar.report.figures import Series, line_figure, number_of
from feldspar.report.run_card import finding
from feldspar.report.run_facts import Records, RunFacts
from feldspar.report.smoothing import extremes, places_of, smoothed

MEASURES = (
    ("bits_per_byte", "Validation by source", "bits per byte"),
    ("top1", "The first class is right", "share of images"),
    ("top5", "One of five classes is right", "share of images"),
    ("box_AP", "Boxes that are found", "average precision"),
    ("mask_AP", "Masks that are found", "average precision"),
    ("mean_iou", "Classes of pixels", "mean intersection by union"),
)

TIMES = ((3600, "hours"), (60, "minutes"), (1, "seconds"))
Runs = Sequence[RunFacts]


def training_figures(runs: Runs) -> list[Figure]:
    """Return loss, validation by source, and the course of each setting and measurement.

    What stays the same over all steps of all runs has no figure.
    """
    unit = runs[0].unit
    figures = [loss_figure(runs, unit, lambda run: [row[unit] for row in run.rows])]
    if len(runs) > 1:
        figures += _over_cost(runs)
    for measure, title, label in MEASURES:
        series = validation_series(runs, measure)
        if series:
            told = title if len(runs) == 1 else title.removesuffix(" by source")
            figures.append(line_figure(_ends(told, series), series, unit, label))
    for key, title, label in (
        ("learning_rate", "Learning rate", "base learning rate"),
        ("sequences", "Batch", "sequences per step"),
        ("batch_images", "Batch", "images per step"),
        ("gradient_norm", "Gradient norm", "before clipping"),
        (f"{unit}_per_second", "Speed", f"{unit} per second"),
    ):
        own = _measurement(runs, key, title, label)
        figures += [own] if own is not None else []
    return figures


def loss_figure(runs: Runs, x_label: str, places: Callable[[RunFacts], Sequence[float]]) -> Figure:
    """Return the training loss over ``places`` of the steps, with the validation of each run."""
    one, series = len(runs) == 1, []
    for index, run in enumerate(runs):
        x, losses = places(run), [number_of(row["train/loss"]) for row in run.rows]
        if one:
            series.append(Series("", *extremes(x, losses), "faint", colour=0))
        at = places_of(len(x))
        name, colour = ("training", 0) if one else ("" if _validated(run) else run.name, index)
        style = "line" if one or not _validated(run) else "faint"
        series.append(Series(name, [x[i] for i in at], smoothed(losses, at), style, colour=colour))
        measured = [
            (place, number_of(row["validation/loss"]))
            for place, row in zip(x, run.rows, strict=True)
            if "validation/loss" in row
        ]
        if measured:
            label, own = ("validation", 1) if one else (run.name, index)
            ends, means = zip(*measured, strict=True)
            series.append(Series(label, ends, means, "points", colour=own))
    title = finding(runs[0]) if one else compared(runs)
    return line_figure(title, series, x_label, f"nats per {runs[0].unit[:-1]}")


def compared(runs: Runs) -> str:
    """Say which run has the lowest loss, and by how much."""
    found = [(run.validation(), run) for run in runs]
    known = [(value.last, run) for value, run in found if value is not None]
    kind = "Validation loss"
    if len(known) < len(runs):
        kind = "Training loss"
        known = [(end, run) for run in runs if math.isfinite(end := end_loss(run))]
    if len(known) < 2:
        return f"{kind} of {len(runs)} runs"
    (best, winner), (second, _), *_ = sorted(known, key=lambda each: each[0])
    if f"{best:.3f}" == f"{second:.3f}":
        return f"{kind}: the best two runs are equal at {best:.3f}"
    return f"{kind} is lowest in {winner.name}: {best:.3f}, the next {second:.3f}"


def end_loss(run: RunFacts) -> float:
    """Return the smoothed training loss after the last step."""
    losses = [number_of(row["train/loss"]) for row in run.rows]
    return smoothed(losses, [len(losses) - 1])[0]


def validation_series(runs: Runs, measure: str) -> list[Series]:
    """Return a series for each source of each run; the mean alone where runs are compared."""
    series = []
    for run in runs:
        measured = [row for row in run.rows if f"validation/{measure}" in row]
        keys = [
            key
            for key in (measured[-1] if measured else {})
            if key.startswith("validation/") and key.endswith(f"/{measure}")
        ]
        if len(runs) > 1:
            keys = [key for key in keys if key.count("/") == 1]
        for key in keys:
            source = key.split("/")[1] if key.count("/") == 2 else "mean"
            known = [row for row in measured if key in row]
            x, y = [row[run.unit] for row in known], [number_of(row[key]) for row in known]
            name = source if len(runs) == 1 else run.name
            series.append(
                Series(name, x, y, "points", is_reference=source == "mean" and len(keys) > 1)
            )
    return series


def _ends(title: str, series: Sequence[Series]) -> str:
    """Return the title with the last value of the lowest and of the highest series."""
    ends = [(item.y[-1], item.label) for item in series if math.isfinite(item.y[-1])]
    own = [each for each in ends if each[1] != "mean"] or ends
    if not own:
        return title
    (low, low_name), (high, high_name) = min(own), max(own)
    if len(own) == 1:
        return f"{title}: {precise(low)} at the end"
    return f"{title}: from {precise(low)} ({low_name}) to {precise(high)} ({high_name})"


def _measurement(runs: Runs, key: str, title: str, label: str) -> Figure | None:
    """Return a figure of one measurement of each step; None where there is nothing to see."""
    if not all(key in row for run in runs for row in run.rows):
        return None
    values = [[number_of(row[key]) for row in run.rows] for run in runs]
    known = [value for own in values for value in own if math.isfinite(value)]
    if not known or min(known) == max(known):
        return None
    one, noisy = len(runs) == 1, key not in ("learning_rate", "sequences", "batch_images")
    series = []
    for index, (run, own) in enumerate(zip(runs, values, strict=True)):
        x = [row[run.unit] for row in run.rows]
        if noisy and one:
            series.append(Series("", *extremes(x, own), "faint", colour=index))
        at = places_of(len(x))
        y = smoothed(own, at) if noisy else [own[i] for i in at]
        series.append(Series("" if one else run.name, [x[i] for i in at], y, colour=index))
    told = _told(key, title, runs[0].rows, runs[0].unit, values[0]) if one else title
    return line_figure(told, series, runs[0].unit, label)


def _told(key: str, title: str, rows: Records, unit: str, values: Sequence[float]) -> str:
    """Return the title of a measurement of one run: what its curve shows."""
    known = [(value, row) for value, row in zip(values, rows, strict=True) if math.isfinite(value)]
    largest, where = max(known, key=lambda each: each[0])
    last, middle = known[-1][0], median(value for value, _ in known)
    if key == "learning_rate":
        return f"{title}: {number(largest, 3)} at its peak, {number(last, 3)} at the end"
    if key in ("sequences", "batch_images"):
        return f"{title}: from {amount(values[0])} to {amount(last)} {key.removeprefix('batch_')}"
    if key == "gradient_norm":
        at = amount(where[unit])
        return f"{title}: median {number(middle, 2)}, largest {number(largest, 2)} at {at} {unit}"
    return f"{title}: {amount(middle)} {unit} per second (median)"


def _over_cost(runs: Runs) -> list[Figure]:
    """Return the losses of several runs over FLOPs and over time, where these were recorded."""
    figures = []
    flops = {run.name: own for run in runs if (own := run.flops) is not None}
    if len(flops) == len(runs):
        over = loss_figure(runs, "training FLOPs", lambda run: flops[run.name])
        figures.append(replace(over, title="The same over FLOPs"))
    seconds = {run.name: run.seconds for run in runs}
    longest = max(own[-1] for own in seconds.values())
    if longest > 0:
        size, unit = next(each for each in TIMES if longest >= each[0] * 2 or each[0] == 1)
        over = loss_figure(
            runs, f"{unit} of training", lambda run: [each / size for each in seconds[run.name]]
        )
        figures.append(replace(over, title="The same over time"))
    return figures


def _validated(run: RunFacts) -> bool:
    return run.validation() is not None
