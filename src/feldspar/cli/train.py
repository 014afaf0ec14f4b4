"""``feldspar train``: a recipe trained in a run folder; the same command again resumes it."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from feldspar.recipe import LoadedRecipe

Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value overrides, e.g. phases.0.length='1e6 tokens'")
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def train(
        recipe: Annotated[str, typer.Argument(help="Recipe file, shipped name or run folder.")],
        overrides: Overrides = None,
        out: Annotated[
            Path | None, typer.Option("--out", help="Run folder; default runs/NAME.")
        ] = None,
        overwrite: Annotated[
            bool, typer.Option("--overwrite", help="Start anew in a folder that holds a run.")
        ] = False,
        dry_run: Annotated[
            bool,
            typer.Option("--dry-run", help="Check everything that needs no device; train nothing."),
        ] = False,
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Train a recipe, or continue the run where it stopped.

        Example: feldspar train cerebras-gpt/small --out runs/first
        """
        from feldspar.cli.console import print_json
        from feldspar.recipe import load_recipe

        loaded = load_recipe(recipe, overrides)
        if dry_run:
            show_dry_run(loaded, json)
            return
        from feldspar.train import train as train_recipe

        folder = out or Path("runs") / loaded.recipe.name
        result = train_recipe(loaded, folder, overwrite)
        if json:
            print_json(
                {"run": str(folder), "tokens": result.tokens, "steps": result.steps}
                | result.metrics
            )
            return
        loss = result.metrics.get("validation/loss")
        measured = "" if loss is None else f", validation loss {loss:.4f}"
        typer.echo(f"{folder}: {result.tokens:,} tokens in {result.steps:,} steps{measured}")


def show_dry_run(loaded: "LoadedRecipe", json: bool) -> None:
    """The plan, refused where training would refuse it as far as the data are known."""
    from feldspar.cli.console import print_json
    from feldspar.cli.plan import print_plan
    from feldspar.plan import resolve_mixtures
    from feldspar.tokens.resolve import UnknownTokens
    from feldspar.train.data import plan_loaded

    planned = plan_loaded(loaded)
    if planned.source_tokens:
        with suppress(UnknownTokens), loaded.locating_errors():
            resolve_mixtures(planned.recipe, planned.timeline, planned.source_tokens)
    summary = planned.summary()
    if json:
        print_json(summary)
        return
    print_plan(summary)
    typer.echo("dry run: nothing was trained")
