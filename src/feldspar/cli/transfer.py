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
        """Search study.vary on a small model and verify the learning rate at study.targets.

        The same command again continues where it was stopped.

        Example: feldspar transfer cerebras-gpt/small --trials 8 --out runs/transfer
        """
        from feldspar.cli.console import print_json
        from feldspar.core.errors import UserError
        from feldspar.recipe.load import load_recipe

        given = list(overrides or [])
        if trials is not None:
            given.append(f"study.search.trials={trials}")
        if workers is not None and workers < 1:
            raise UserError("--workers: at least one run at a time", found=workers)
        loaded = load_recipe(recipe, given)
        from feldspar.prepare.build import build_missing
        from feldspar.study.transfer import run_transfer
        from feldspar.study.transfer_report import (
            check_report_extra,
            lines,
            summary,
            write_transfer,
        )
        from feldspar.study.trials import default_workers

        check_report_extra()
        build_missing(loaded)
        folder = out or Path("runs") / f"{loaded.recipe.name}-transfer"
        found = run_transfer(
            recipe, given, folder, workers=workers or default_workers(loaded.recipe)
        )
        write_transfer(found)
        if json:
            print_json(summary(found))
            return
        typer.echo("\n".join([*lines(found), f"report: {folder / 'report.html'}"]))
