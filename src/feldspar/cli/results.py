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
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Write one page of the claims that reproduce has judged.

        The page is FOLDER/README.md. Words that you add around the claims stay when the page is
        written again.
        Example: feldspar results runs/reproduce
        """
        from feldspar.cli.console import print_json
        from feldspar.papers.results_page import write_page

        page = write_page(folder)
        if json:
            print_json({"page": str(page)})
        else:
            typer.echo(str(page))
