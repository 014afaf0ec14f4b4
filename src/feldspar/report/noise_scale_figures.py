"""Draw the noise scale with its error band, and the batch size, for runs that measured them."""

from collections.abc import Mapping, Sequence
from typing import Any

from feldspar.core.readable import amount
from feldspar.report.canvas import Figure
from feldspar.report.figures import Band, Series, line_figure, number_of
from feldspar.report.page import Section

KEY = "noise_scale/total"
GROUPS = ("total", "norm", "attention", "feed_forward", "embedding", "output")

Records = Sequence[Mapping[str, Any]]


def noise_scale_sections(records: Mapping[str, Records]) -> list[Section]:
    """Return a section of figures for each run that measured its noise scale."""
    return [
        Section(
            "Noise scale" if len(records) == 1 else f"Noise scale of {name}",
            [
                (
                    "The noise scale is the batch size at which noise and signal of a "
                    "step are equal. The band is one standard error of the signal. The "
                    "noise scale is a cautious lower estimate of the critical batch "
                    "size. Where there is no line, it could not be estimated."
                )
            ],
            figures=noise_scale_figures([row for row in rows if KEY in row]),
        )
        for name, rows in records.items()
        if any(KEY in row for row in rows)
    ]


def noise_scale_figures(rows: Records) -> list[Figure]:
    """Return the total with its band beside the batch size, and each measured group, over
    tokens."""
    tokens = [row["tokens"] for row in rows]

    def values(key: str) -> list[float]:
        return [number_of(row.get(key)) for row in rows]

    known = [each for each in zip(values(KEY), values("sequences"), strict=True) if each[0] > 0]
    title = "Noise scale and batch"
    if known:
        noise, batch = known[-1]
        title = f"Noise scale at the end: {amount(noise)} sequences; batch: {amount(batch)}"
    figures = [
        line_figure(
            title,
            [
                Series("noise scale", tokens, values(KEY)),
                Series("batch", tokens, values("sequences")),
            ],
            "tokens",
            "sequences",
            log_y=True,
            bands=[Band("", tokens, values(f"{KEY}/low"), values(f"{KEY}/high"))],
        )
    ]
    groups = [name for name in GROUPS if f"noise_scale/{name}" in rows[-1]]
    if len(groups) > 1:
        lines = [Series(name, tokens, values(f"noise_scale/{name}")) for name in groups]
        figures.append(
            line_figure("Noise scale by group", lines, "tokens", "sequences", log_y=True)
        )
    return figures
