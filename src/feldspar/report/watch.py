"""Keep the page of runs up to date while they train."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from feldspar.core.progress import say, show
from feldspar.recipe.recorded import METRICS_NAME
from feldspar.report.run_facts import State
from feldspar.report.run_report import read_all, write_run_report

INTERVAL_SECONDS = 3.0
REFRESH_SECONDS = 5
"""The open page loads itself again after so many seconds."""
PATIENCE = 10
"""Looks at a run without any beginning or step, after which it counts as absent."""


def watch_runs(
    runs: Sequence[Path],
    out: Path | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Path:
    """Write the page whenever records arrive, until no run trains any more; return its path.

    ``pause`` waits for so many seconds between two looks. The last page does not load itself
    again. Raises UserError for a folder that is not a run.
    """
    seen: tuple[int, ...] | None = None
    while True:
        sizes = tuple(_size(run / METRICS_NAME) for run in runs)
        training = any(run.state is State.TRAINING for run in read_all(runs))
        if not training:
            return write_run_report(runs, out)
        if sizes != seen:
            path = write_run_report(runs, out, REFRESH_SECONDS)
            if seen is None:
                say(f"{path} follows the run; open it in a browser. Ctrl-C ends.")
            seen = sizes
        show(f"watching {', '.join(map(str, runs))}")
        pause(INTERVAL_SECONDS)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
