"""``feldspar transfer``: tune a small model, carry the values to other shapes, check they hold."""

from pathlib import Path
from typing import Annotated

import typer

Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="key=value overrides that make the proxy, e.g. model.d_model=64"),
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def transfer(
        recipe: Annotated[str, typer.Argument(help="Recipe file or shipped name.")],
        overrides: Overrides = None,
        trials: Annotated[
            int | None,
            typer.Option("--trials", help="Runs of the search; default study.search.trials."),
        ] = None,
        workers: Annotated[
            int | None,
            typer.Option(
                "--workers", help="Runs side by side; default one a core, one alone on a GPU."
            ),
        ] = None,
        out: Annotated[
            Path | None, typer.Option("--out", help="Folder; default runs/NAME-transfer.")
        ] = None,
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Tune a small model, then verify on larger ones.

        Values of study.vary are searched, and the learning rate is verified at study.targets.
        The same command again continues where it was stopped.

        Example: feldspar transfer cerebras-gpt/small --trials 8 --out runs/transfer
        """
        from feldspar.cli.console import print_json
        from feldspar.cli.next_steps import quoted, tell_next
        from feldspar.recipe.load import load_recipe

        loaded = load_recipe(recipe, overrides)
        import feldspar

        found = feldspar.transfer(loaded, out, trials=trials, workers=workers)
        from feldspar.cli.tables import print_table
        from feldspar.study.transfer import BEST_NAME
        from feldspar.study.transfer_report import (
            search_lines,
            summary,
            verdict_lines,
            verification_table,
        )

        if json:
            print_json(summary(found))
            return
        typer.echo("\n".join(search_lines(found)))
        if found.proxy is not None:
            header, *rows = verification_table(found)
            print_table(header, rows, indent=2)
        typer.echo("\n".join([*verdict_lines(found), f"report: {found.folder / 'report.html'}"]))
        best = quoted(found.folder / BEST_NAME)
        tell_next((f"feldspar train {best}", "train with the values that were found"))
