"""Write the results of a transfer: as plain values (transfer.json), as lines, and as a page.

In JSON an infinite loss (a run that diverged) is null.
"""

import math
import shlex
from typing import Any

from feldspar.core.files import write_atomically
from feldspar.core.json_files import json_values, write_json
from feldspar.report.figures import Series, line_figure
from feldspar.report.page import Section, Table, render_page
from feldspar.study.curves import COSTLY, OptimumShift
from feldspar.study.sweep import as_overrides
from feldspar.study.transfer import BEST_NAME, LEARNING_RATE, ShapeCurve, Transfer

JSON_NAME = "transfer.json"
PAGE_NAME = "report.html"
FIGURE_NAME = "learning_rate.svg"
OUTSIDE = "the lowest loss is at an end of the grid, so the optimum may be outside"


def summary(transfer: Transfer) -> dict[str, Any]:
    """Return all of it as plain values; numbers that are not finite become null."""
    best = transfer.best
    found = {
        "recipe": transfer.recipe,
        "overrides": list(transfer.overrides),
        "score": transfer.study.score,
        "search": {
            "sampler": transfer.study.search.sampler,
            "trials": [
                {
                    "values": point.values,
                    "score": point.score,
                    "run": _run(point, transfer),
                }
                for point in transfer.searched
            ],
        },
        "best": {
            "values": best.values,
            "score": best.score,
            "overrides": list(as_overrides(best.values)),
            "recipe": str(transfer.folder / BEST_NAME),
        },
        "verification": _verification(transfer),
        "verdict": transfer.verdict,
    }
    return json_values(found)


def _verification(transfer: Transfer) -> dict[str, Any] | None:
    if transfer.proxy is None:
        return None
    return {
        "seeds": transfer.study.seeds,
        "learning_rates": list(transfer.proxy.curve.rates),
        "transferred": transfer.transferred,
        "proxy": _shape(transfer.proxy),
        "targets": [
            _shape(target) | _moved(item)
            for target, item in zip(transfer.targets, transfer.moves, strict=True)
        ],
    }


def _shape(shape: ShapeCurve) -> dict[str, Any]:
    curve = shape.curve
    return {
        "name": shape.name,
        "overrides": shape.overrides,
        "losses": list(curve.losses),
        "spreads": [point.spread for point in shape.points],
        "optimum": curve.rate,
        "optimum_by_parabola": curve.parabola_rate,
        "at_edge": curve.at_edge,
    }


def _moved(item: OptimumShift) -> dict[str, Any]:
    return {
        "moved_steps": item.steps,
        "moved_steps_by_parabola": item.parabola_steps,
        "excess_percent": 100 * item.excess,
        "verdict": item.verdict,
    }


def search_lines(transfer: Transfer) -> list[str]:
    """Return the result of the search for people, and how it is verified."""
    best, score = transfer.best, transfer.study.score
    diverged = sum(not math.isfinite(point.score) for point in transfer.searched)
    told = [
        (
            f"search: {len(transfer.searched)} trials ({transfer.study.search.sampler}), "
            f"{diverged} diverged; best {score} {best.score:.4f}"
        ),
        *(f"  {override}" for override in as_overrides(best.values)),
        f"written to {transfer.folder / BEST_NAME}",
    ]
    if transfer.proxy is None:
        return [*told, "verification: none, study.targets is empty"]
    rates = " ".join(f"{rate:.4g}" for rate in transfer.proxy.curve.rates)
    return [*told, f"verification: learning rates {rates}; {_seeds(transfer)} a point"]


def verdict_lines(transfer: Transfer) -> list[str]:
    """Return the verdict of the verification for people; nothing where there was none."""
    if transfer.proxy is None:
        return []
    edges = [
        f"  {shape.name}: {OUTSIDE}"
        for shape in (transfer.proxy, *transfer.targets)
        if shape.curve.at_edge
    ]
    return [*edges, f"verdict: {transfer.verdict}"]


def verification_table(transfer: Transfer) -> list[list[str]]:
    """Return the header and the rows of the verification: the proxy, then each target."""
    assert transfer.proxy is not None
    header = ["shape", "lowest loss", "at rate", "by parabola", "moved by (grid steps)"]
    header += ["by parabola", f"loss at {transfer.transferred:.4g}", "verdict"]
    rows = []
    for shape, item in zip(
        (transfer.proxy, *transfer.targets), (None, *transfer.moves), strict=True
    ):
        curve = shape.curve
        row = [shape.name, _number(curve.loss, ".4f"), _number(curve.rate, ".4g")]
        row.append(_number(curve.parabola_rate, ".4g"))
        if item is None:
            row += ["", "", _percent(curve.excess(transfer.transferred)), ""]
        else:
            row += [_number(item.steps, "+d"), _number(item.parabola_steps, "+.2f")]
            row += [_percent(item.excess), item.verdict]
        rows.append(row)
    return [header, *rows]


def write_transfer(transfer: Transfer) -> None:
    """Write transfer.json, the figure and the page into the folder.

    Raises SetupError without the report extra.
    """
    write_json(transfer.folder / JSON_NAME, summary(transfer))
    sections = [_search_section(transfer)]
    if transfer.proxy is not None:
        series = [_series(shape) for shape in (transfer.proxy, *transfer.targets)]
        title = "Loss against learning rate"
        figure = line_figure(title, series, LEARNING_RATE, transfer.study.score, log_x=True)
        write_atomically(transfer.folder / FIGURE_NAME, figure.standalone)
        header, *rows = verification_table(transfer)
        notes = [
            (
                f"Learning rate of the proxy, {transfer.transferred:.4g}, on other model "
                f"sizes; mean over {_seeds(transfer)}. It holds if the optimum is within "
                "one grid step of the proxy's, and if the proxy's rate costs at most "
                f"{COSTLY:.0%} more loss there."
            )
        ]
        notes += [
            f"{shape.name}: {OUTSIDE}."
            for shape in (transfer.proxy, *transfer.targets)
            if shape.curve.at_edge
        ]
        sections.insert(0, Section("Verification", notes, [Table(header, rows)], [figure]))
    command = shlex.join(["feldspar", "transfer", transfer.recipe, *transfer.overrides])
    page = render_page("Transfer of hyper-parameters", command, sections)
    write_atomically(transfer.folder / PAGE_NAME, page)


def check_report_extra() -> None:
    """Raise SetupError without the report extra, before hours of training rather than after
    them."""
    render_page("", "", [Section("", figures=[line_figure("", [], "", "")])])


def _series(shape: ShapeCurve) -> Series:
    curve = shape.curve
    known = [pair for pair in zip(curve.rates, curve.losses, strict=True) if math.isfinite(pair[1])]
    return Series(shape.name, [rate for rate, _ in known], [loss for _, loss in known], "points")


def _search_section(transfer: Transfer) -> Section:
    keys = list(transfer.best.values)
    ordered = sorted(transfer.searched, key=lambda point: point.score)
    rows = [
        [*(str(point.values[key]) for key in keys), _number(point.score, ".4f")]
        for point in ordered
    ]
    return Section(
        "Search on the proxy",
        [f"{len(ordered)} trials, {transfer.study.search.sampler}; the best first."],
        [Table([*keys, transfer.study.score], rows)],
        texts=[(transfer.folder / BEST_NAME).read_text(encoding="utf-8")],
    )


def _seeds(transfer: Transfer) -> str:
    return f"{transfer.study.seeds} seed{'s' if transfer.study.seeds > 1 else ''}"


def _number(value: float | None, form: str) -> str:
    if value is None:
        return "-"
    return format(value, form) if math.isfinite(value) else "diverged"


def _percent(excess: float) -> str:
    return f"{100 * excess:+.2f} %" if math.isfinite(excess) else "diverged"


def _run(point: Any, transfer: Transfer) -> str:
    (result,) = point.results
    return result.folder.relative_to(transfer.folder).as_posix()
