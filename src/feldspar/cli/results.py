"""``feldspar results``: one page of all recorded claims."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def results(
        folder: Annotated[
            Path, typer.Argument(help="Folder of experiments, or of their records PAPER.json.")
        ],
    ) -> None:
        """Write one page of the claims that reproduce has judged: FOLDER/README.md.

        Words that you add around the claims stay when the page is written again.
        Example: feldspar results runs/reproduce
        """
        from feldspar.papers.results_page import write_page

        typer.echo(str(write_page(folder)))
