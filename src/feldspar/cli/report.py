"""``feldspar report``: one HTML page of one or several runs."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def report(
        runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
        out: Annotated[
            Path | None, typer.Option("--out", help="HTML file; default RUN/report.html.")
        ] = None,
        watch: Annotated[
            bool,
            typer.Option("--watch", help="Write the page anew until the runs end; Ctrl-C stops."),
        ] = False,
    ) -> None:
        """Write one self-contained HTML page of a run, or of several side by side.

        With --watch the open page loads itself again while a run trains.
        Example: feldspar report runs/quickstart
        """
        from feldspar.report.run_report import write_run_report
        from feldspar.report.watch import watch_runs

        typer.echo(str(watch_runs(runs, out) if watch else write_run_report(runs, out)))
