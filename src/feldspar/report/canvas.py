"""Give figures one style, and write them as SVG that is identical on all machines.

Text stays text: files are half as large, readers can search and copy it, and screen readers read
it. Its place is measured with DejaVu Sans, which is wider than the fonts of systems, so that it
fits with each of them.
"""

import io
import json
import math
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import wrap
from typing import Any
from xml.sax.saxutils import escape

from feldspar.core.errors import missing_extra
from feldspar.core.readable import tick
from feldspar.report.palette import GRID, INK, QUIET, dark_rules

WIDTH_INCHES, HEIGHT_INCHES = 5.3, 3.2
PANEL_SHARE = 0.85
"""Width of one of several panels, as a share of a figure of its own."""
POINTS_PER_INCH = 72
FONT = "system-ui, sans-serif"
PAD_INCHES = 0.08
TITLE_POINTS = 12.5
TITLE_LINE_POINTS = 17.0
CHARACTER_WIDTHS = 0.58
"""Width of a character of a bold title by its height."""
STYLE: dict[str, Any] = {
    # A fixed salt gives the same element ids, and so the same bytes, each time.
    "svg.hashsalt": "feldspar",
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK.light,
    "axes.labelcolor": QUIET.light,
    "axes.labelsize": 10,
    "axes.edgecolor": QUIET.light,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.formatter.useoffset": False,
    "axes.unicode_minus": True,
    "grid.color": GRID.light,
    "grid.linewidth": 0.8,
    "xtick.color": QUIET.light,
    "ytick.color": QUIET.light,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "path.simplify_threshold": 0.3,
}
ERROR_BARS: dict[str, Any] = {"fmt": "none", "capsize": 2.5, "elinewidth": 1.1, "alpha": 0.6}
_FONT = re.compile(r"font: ([^;\"']*?px) '[^\"]*?(?=[;\"])")
_HEAD = re.compile(r"<svg[^>]*>")


@dataclass(frozen=True)
class Figure:
    """A drawn figure: title, SVG, and the values that a page shows where a reader points."""

    title: str
    svg: str
    hover: str = ""
    """JSON for the script of the page; empty where there is nothing to show."""
    is_wide: bool = False

    @property
    def standalone(self) -> str:
        """The SVG with its title drawn above, for a file that stands without a page."""
        found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', self.svg)
        if not self.title or found is None:
            return self.svg
        width, height = float(found[1]), float(found[2])
        columns = int((width - 12) / (TITLE_POINTS * CHARACTER_WIDTHS))
        lines = wrap(self.title, columns)
        room = TITLE_LINE_POINTS * len(lines) + 6
        spans = "".join(
            f'<tspan x="6" y="{TITLE_LINE_POINTS * (index + 1) - room:g}">{escape(line)}</tspan>'
            for index, line in enumerate(lines)
        )
        style = f"font: 600 {TITLE_POINTS:g}px {FONT}; fill: {INK.light}"
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'role="img" width="{width:g}pt" height="{height + room:g}pt" '
            f'viewBox="0 {-room:g} {width:g} {height + room:g}" version="1.1">'
        )
        body = _HEAD.sub(lambda _: head, self.svg, count=1)
        return body.replace("</svg>", f'<text style="{style}">{spans}</text>\n</svg>')


@dataclass
class Drawing:
    """A canvas with its axes, to be drawn on within ``drawing``."""

    canvas: Any
    axes: list[Any]

    def place(self) -> None:
        """Lay out all axes, so that places of data on the canvas are known; they then stay."""
        self.canvas.get_layout_engine().execute(self.canvas)
        self.canvas.set_layout_engine("none")

    def finish(self, title: str, description: str, hover: Sequence[dict[str, Any]] = ()) -> Figure:
        """Return the figure; ``description`` is for readers who cannot see it."""
        buffer = io.StringIO()
        self.canvas.savefig(buffer, format="svg", metadata=NO_METADATA)
        text = buffer.getvalue()
        text = _FONT.sub(rf"font: \1 {FONT}", text[text.index("<svg") :]).strip()
        words = f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
        head = _HEAD.match(text)
        assert head is not None
        opened = head[0].replace("<svg ", '<svg role="img" ', 1)
        svg = f"{opened}\n{words}<style>{dark_rules()}</style>{text[head.end() :]}"
        data = json.dumps(list(hover), ensure_ascii=True) if hover else ""
        return Figure(title, svg, data.replace("<", "\\u003c"), len(self.axes) > 1)


NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@contextmanager
def drawing(
    columns: int = 1, height: float = HEIGHT_INCHES, width: float = WIDTH_INCHES
) -> Generator[Drawing]:
    """Open a canvas with axes side by side, in the style of all figures.

    Raises SetupError if matplotlib is not installed.
    """
    try:
        import matplotlib
        from cycler import cycler
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        raise missing_extra("matplotlib", "report") from None
    # What names no colour, such as the caps of error bars, is ink.
    with matplotlib.rc_context(STYLE | {"axes.prop_cycle": cycler(color=[INK.light])}):
        size = (width * (1 if columns == 1 else PANEL_SHARE * columns), height)
        canvas = Canvas(figsize=size, dpi=POINTS_PER_INCH)
        canvas.set_layout_engine("constrained", w_pad=PAD_INCHES, h_pad=PAD_INCHES)
        axes = [canvas.add_subplot(1, columns, index + 1) for index in range(columns)]
        for own in axes:
            for axis in (own.xaxis, own.yaxis):
                plain_numbers(axis)
        yield Drawing(canvas, axes)


def plain_numbers(axis: Any, *, log: bool = False, span: tuple[float, float] = (1, 10)) -> None:
    """Let an axis write numbers without offsets or powers where they are short.

    On a logarithmic axis, ``span`` is the smallest and the largest value: a span of few decades
    has numbers between the powers of ten.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    if log:
        decades = math.log10(span[1] / span[0]) if span[0] > 0 else 1
        if decades < 0.8:
            axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
        else:
            between = (1, 2, 5) if decades < 1.7 else (1, 3) if decades < 3 else (1,)
            axis.set_major_locator(LogLocator(subs=between, numticks=8))
        axis.set_minor_formatter(NullFormatter())
        axis.set_tick_params(which="minor", size=0)
    else:
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))

    def written(value: float, _: int | None = None) -> str:
        shown = [each for each in axis.get_majorticklocs() if abs(each) < 1e4]
        return tick(value, None if log else max(map(_decimals, shown), default=0))

    axis.set_major_formatter(FuncFormatter(written))


def _decimals(value: float) -> int:
    """Return the decimals of a number of an axis, whose steps have few digits."""
    return len(f"{value:.6f}".rstrip("0").partition(".")[2])
