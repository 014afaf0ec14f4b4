"""Held-out bits per byte by what was trained and by part of the held-out text, seeds together."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from feldspar.papers.kit.paper import values_of
from feldspar.report.figures import Figure
from feldspar.report.page import Section, Table
from feldspar.study.trials import TrialResult

BitsByPart = dict[str, dict[str, list[float]]]
"""Bits per byte of each seed, by what was trained and by part: a source, or a kind of page."""


def grouped(
    runs: Sequence[TrialResult], key: str, measured: Sequence[Mapping[str, float]]
) -> BitsByPart:
    """Seeds of one thing together; ``key`` is the override that tells things apart."""
    found: BitsByPart = {}
    for run, values in zip(runs, measured, strict=True):
        by_part = found.setdefault(values_of(run.trial)[key], {})
        for part, value in values.items():
            by_part.setdefault(part, []).append(value)
    return found


def means_over_parts(by_part: Mapping[str, Sequence[float]]) -> list[float]:
    """The mean over parts, each counted once, of every seed."""
    return [fmean(values) for values in zip(*by_part.values(), strict=True)]


def matrix_section(
    title: str,
    found: BitsByPart,
    totals: Mapping[str, Sequence[float]],
    total: str,
    figure: Figure | None = None,
) -> Section:
    """Rows of what was trained, columns of parts, and last the ``totals`` under their name."""
    parts = list(next(iter(found.values())))
    rows = [
        [row, *(f"{fmean(by_part[part]):.4f}" for part in parts), f"{fmean(totals[row]):.4f}"]
        for row, by_part in found.items()
    ]
    words = "Held-out bits per byte, mean over seeds; lower is better."
    figures = [figure] if figure else []
    return Section(title, [words], [Table(["trained on", *parts, total], rows)], figures)
