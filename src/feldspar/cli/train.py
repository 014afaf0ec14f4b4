"""``feldspar train``: a recipe trained in a run folder; the same command again resumes it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from feldspar.prepare.stages import Stage
    from feldspar.recipe.load import LoadedRecipe

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
            typer.Option("--dry-run", help="List what is ready or to build, and plan; do nothing."),
        ] = False,
        no_build: Annotated[
            bool, typer.Option("--no-build", help="Refuse to build documents, tokenizer or shards.")
        ] = False,
        offline: Annotated[
            bool, typer.Option("--offline", help="Build documents from cached archives only.")
        ] = False,
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Train a recipe, or continue the run where it stopped.

        Documents, tokenizer and shards that are missing are built first.

        Example: feldspar train cerebras-gpt/small --out runs/first
        """
        from feldspar.cli.console import print_json
        from feldspar.cli.next_steps import quoted, tell_next
        from feldspar.recipe.load import load_recipe

        loaded = load_recipe(recipe, overrides)
        if dry_run:
            show_dry_run(loaded, json)
            return
        import feldspar

        result = feldspar.train(
            loaded, out, overwrite=overwrite, build=not no_build, offline=offline
        )
        folder = result.folder
        if json:
            print_json(
                {"run": str(folder), "tokens": result.position, "steps": result.steps}
                | result.metrics
            )
            return
        loss = result.metrics.get("validation/loss")
        measured = "" if loss is None else f", validation loss {loss:.4f}"
        typer.echo(f"{folder}: {result.position:,} tokens in {result.steps:,} steps{measured}")
        run = quoted(folder)
        tell_next(
            (f"feldspar evaluate {run}", "held-out bits per byte"),
            (f"feldspar generate {run} --prompt 'The old house'", "it continues a text"),
            (f"feldspar report {run}", "its curves, as one page"),
            (f"feldspar release {run}", "a folder for others"),
        )


def show_dry_run(loaded: "LoadedRecipe", json: bool) -> None:
    """Print what the run needs and its plan, refused where training would refuse it."""
    from feldspar.cli.console import print_json
    from feldspar.cli.next_steps import tell_next
    from feldspar.cli.plan_figures import print_plan
    from feldspar.prepare.build import require_buildable
    from feldspar.prepare.stages import State, stages_of
    from feldspar.train.data import plan_to_train

    stages = stages_of(loaded)
    if any(stage.state is State.REFUSED for stage in stages):
        show_stages(stages)
        require_buildable(stages)
    planned = plan_to_train(loaded)
    if json:
        print_json(planned.summary() | {"stages": [stage.as_dict() for stage in stages]})
        return
    from feldspar.train.time_here import time_here

    show_stages(stages)
    print_plan(planned.summary(), time_here(planned))
    typer.echo("dry run: nothing was trained")
    tell_next((f"feldspar train {loaded.arguments}", "build what is missing, then train"))


def show_stages(stages: "list[Stage]") -> None:
    """Print a line for each thing that the run needs."""
    for stage in stages:
        typer.echo("\n".join(stage.lines()))
