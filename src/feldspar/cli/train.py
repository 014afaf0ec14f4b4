"""``feldspar train``: a recipe trained in a run folder; the same command again resumes it."""

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
    """The plan, and what each phase reads of each source as far as it is known."""
    from feldspar.cli.console import print_json
    from feldspar.cli.plan import print_plan
    from feldspar.plan import declared_tokens, plan_recipe
    from feldspar.plan.sources import resolve_mixtures
    from feldspar.tokens.resolve import UnknownTokens
    from feldspar.train.data import open_shards, source_tokens

    recipe = loaded.recipe
    tokens: dict[str, int | None] | None = None
    sizes = declared_tokens(recipe)
    if recipe.shards is not None and recipe.shards.path.is_dir():
        sizes = source_tokens(open_shards(recipe))
    if sizes is not None:
        tokens = dict(sizes)
    elif recipe.corpus is not None:
        tokens = {name: source.tokens for name, source in recipe.corpus.sources.items()}
    planned = plan_recipe(recipe, sizes)
    mixtures: list[dict[str, object]] = []
    unknown = "the size of the sources"
    if tokens is not None:
        try:
            resolved = resolve_mixtures(recipe, planned.timeline, tokens)
            mixtures = [
                {
                    name: {"probability": float(share), "epochs": mixture.epochs[name]}
                    for name, share in mixture.probabilities.items()
                }
                for mixture in resolved
            ]
        except UnknownTokens as error:
            unknown = error.what
    if json:
        print_json(planned.summary() | {"mixtures": mixtures or None})
        return
    print_plan(planned)
    for phase, shares in zip(planned.timeline.phases, mixtures, strict=False):
        for name, values in shares.items():
            assert isinstance(values, dict)
            epochs = values["epochs"]
            passes = "epochs unknown" if epochs is None else f"{epochs:.3g} epochs"
            typer.echo(f"  phase {phase.name}: {name} {values['probability']:.4f}, {passes}")
    if not mixtures:
        typer.echo(f"  unknown without the data: {unknown}")
    typer.echo("dry run: nothing was trained")
