"""Print tables: aligned columns that lose nothing, on a terminal and in a file."""

import sys
from collections.abc import Collection, Iterable, Sequence
from io import StringIO
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from feldspar.cli.console import shown_on

UNBOUNDED_COLUMNS = 1_000_000
"""Width of a file's lines."""
LEAST_PROSE_COLUMNS = 30


def print_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: int = 1,
    fold: Collection[str] = (),
    indent: int = 0,
) -> None:
    """Print rows below their headers; without headers that hold text, the rows alone.

    The first ``left`` columns are aligned to the left, the others to the right. No cell is cut: a
    table that is wider than the terminal takes longer lines. Only the columns named in ``fold``,
    which hold prose, are folded to fit a terminal. Cells cannot steer the terminal.
    """
    stream = sys.stdout
    raw = getattr(stream, "unescaped", stream)
    table = Table(
        box=None,
        pad_edge=False,
        show_header=any(headers),
        padding=(0, 2, 0, 0),
        header_style="bold",
    )
    for place, header in enumerate(headers):
        table.add_column(
            Text(_in_a_line(raw, header)),
            justify="left" if place < left or header in fold else "right",
            no_wrap=header not in fold,
            overflow="fold",
            min_width=LEAST_PROSE_COLUMNS if header in fold else None,
        )
    for row in rows:
        table.add_row(*(Text(_in_a_line(raw, cell)) for cell in row))
    is_terminal = Console(file=raw).is_terminal
    written = StringIO()
    console = Console(
        file=written, force_terminal=is_terminal, width=None if is_terminal else UNBOUNDED_COLUMNS
    )
    least = Measurement.get(console, console.options.update(width=UNBOUNDED_COLUMNS), table).minimum
    console.width = max(console.width, least)
    console.print(table)
    for line in written.getvalue().splitlines():
        raw.write((" " * indent + line).rstrip() + "\n")


def _in_a_line(stream: Any, text: str) -> str:
    """Return the visible form of ``text`` without line feeds."""
    return shown_on(stream, text).replace("\n", "\\n")
