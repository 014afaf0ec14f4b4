"""Keep the page of runs up to date while they train."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from feldspar.core.progress import say, show
from feldspar.core.records import last_record
from feldspar.recipe.recorded import LOCK_NAME, METRICS_NAME
from feldspar.report.run_facts import is_alive, is_training, last_beginning
from feldspar.report.run_report import write_run_report

INTERVAL_SECONDS = 3.0
REFRESH_SECONDS = 5
"""The open page loads itself again after so many seconds."""


def watch_runs(
    runs: Sequence[Path],
    out: Path | None = None,
    pause: Callable[[float], object] = time.sleep,
) -> Path:
    """Write the page whenever records arrive, until no run trains any more; return its path.

    ``pause`` waits for so many seconds between two looks. The last page does not load itself
    again, also where the user interrupts. Raises UserError for a folder that is not a run.
    """
    seen: tuple[int, ...] | None = None
    try:
        while True:
            if waiting := [run for run in runs if _waits(run)]:
                show(f"waiting for the first step of {', '.join(map(str, waiting))}")
            elif not any(map(is_training, runs)):
                return write_run_report(runs, out)
            elif (sizes := tuple((run / METRICS_NAME).stat().st_size for run in runs)) != seen:
                is_first, seen = seen is None, sizes
                path = write_run_report(runs, out, REFRESH_SECONDS)
                if is_first:
                    say(f"open {path} in a browser: it follows the run; Ctrl-C ends")
            pause(INTERVAL_SECONDS)
    except KeyboardInterrupt:
        if seen is not None:
            write_run_report(runs, out)
        raise
    finally:
        show(None)


def _waits(run: Path) -> bool:
    """Tell whether a process prepares the run, or trains it and has not finished a step."""
    if last_record(run / METRICS_NAME) is not None:
        return False
    beginning = last_beginning(run)
    return is_alive(beginning) if beginning else (run / LOCK_NAME).is_file()
