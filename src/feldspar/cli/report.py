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
    ) -> None:
        """Write one self-contained HTML page of runs. Example: feldspar report runs/quickstart"""
        from feldspar.report.run_report import write_run_report

        typer.echo(str(write_run_report(runs, out)))
