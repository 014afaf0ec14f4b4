"""The tables and the drawing of RevBiFPN's report."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from feldspar.core.student_t import half_width
from feldspar.papers.revbifpn.claims import GB, PAPER_GB, PAPER_GMACS, Counts, Rows
from feldspar.papers.revbifpn.plain import LOGISTIC
from feldspar.report.canvas import Figure
from feldspar.report.figures import Panel, Series, half_widths_of, panel_figure
from feldspar.report.page import Table


def memory_table(memory: Counts) -> Table:
    """Return a row for each network: size, work and memory of an image beside the paper's."""
    rows = [
        [
            name,
            own["pixels"],
            f"{own['parameters']:,}",
            f"{own['multiply_adds'] / 1e9:.2f}",
            _printed(own, "paper_multiply_adds", 1e9, 2),
            PAPER_GMACS.get(name, "-"),
            f"{own['alive'] / GB:.3f}",
            _printed(own, "stored", GB, 3),
            PAPER_GB.get(name, "-"),
        ]
        for name, own in memory.items()
    ]
    header = [
        "network",
        "pixels",
        "parameters",
        "GMACs",
        "by the authors' convention",
        "paper",
        "GB an image",
        "stored",
        "paper's GB",
    ]
    return Table(header, [[str(cell) for cell in row] for row in rows])


def _printed(own: Mapping[str, int], key: str, unit: float, digits: int) -> str:
    return f"{own[key] / unit:.{digits}f}" if key in own else "-"


def accuracy_table(sizes: Rows) -> Table:
    """Return a row for each trained network, by multiply-adds."""
    rows = []
    for name, own in sorted(sizes.items(), key=lambda item: item[1]["multiply_adds"]):
        spread = half_width(own["accuracy"])
        rows.append(
            [
                name,
                f"{own['multiply_adds'] / 1e6:.3f}",
                f"{own['parameters']:,}" if "parameters" in own else "-",
                str(own.get("rate", "-")),
                f"{fmean(own['accuracy']):.2%}",
                "-" if spread is None else f"+- {spread:.2%}",
            ]
        )
    columns = ["network", "million multiply-adds", "parameters", "rate", "top-1", "95 % interval"]
    return Table(columns, rows)


def overview_figure(memory: Counts, sizes: Rows) -> Figure:
    """Draw memory over multiply-adds, and errors over multiply-adds of the small networks."""

    def line(label: str, names: list[str], key: str, is_reference: bool = False) -> Series:
        rows = [memory[name] for name in names]
        work = [row["multiply_adds"] / 1e9 for row in rows]
        values = [row[key] / GB for row in rows]
        return Series(label, work, values, "points", is_reference=is_reference)

    pyramids = [name for name in memory if name.startswith("S")]
    others = [name for name in memory if name.startswith("B")]
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for name, own in sizes.items():
        kinds.setdefault(kind_of(name), []).append(own)
    learnt = [
        Series(
            kind,
            [row["multiply_adds"] / 1e6 for row in rows],
            [100 * (1 - fmean(row["accuracy"])) for row in rows],
            "points",
            half_widths_of([[100 * share for share in row["accuracy"]] for row in rows]),
            is_reference=kind != "RevBiFPN",
        )
        for kind, rows in kinds.items()
    ]
    smaller = memory[others[-1]]["alive"] / memory[pyramids[-1]]["alive"]
    title = (
        f"RevBiFPN {pyramids[-1]} needs {smaller:.2g} times less memory for an image in training "
        f"than EfficientNet {others[-1]}"
    )
    return panel_figure(
        title,
        [
            Panel(
                [
                    line("RevBiFPN S0-S6, activations rebuilt", pyramids, "alive"),
                    line("the same, activations stored", pyramids, "stored"),
                    line("EfficientNet B0-B7", others, "alive", True),
                ],
                "billion multiply-adds",
                "GB an image in training",
            ),
            Panel(learnt, "million multiply-adds", "% errors on Fashion-MNIST, 95 %"),
        ],
    )


def kind_of(name: str) -> str:
    """Return the kind of network that a row of the figures is."""
    if name == LOGISTIC:
        return name
    return "plain convolutions" if name.startswith("plain") else "RevBiFPN"
