"""``feldspar config``: what keys mean, what a recipe resolves to, the schema for editors."""

from typing import Annotated, Literal

import typer

Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value overrides, e.g. model.d_model=512")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    config = typer.Typer(help="Explain keys, show resolved recipes, print the schema.")
    app.add_typer(config, name="config")

    @config.command()
    def explain(
        key: Annotated[str, typer.Argument(help="Dotted key, or a word such as warmup.")],
    ) -> None:
        """Say what a key means, or which keys a word is about.

        Example: feldspar config explain model.positions
        """
        from feldspar.recipe.explain import explain as explain_key

        typer.echo("\n".join(explain_key(key)))

    @config.command()
    def show(recipe: str, overrides: Overrides = None) -> None:
        """Print a resolved recipe, each value with its origin.

        Example: feldspar config show btlm/paper
        """
        from feldspar.recipe.load import load_any_recipe
        from feldspar.recipe.write import recipe_text

        typer.echo(recipe_text(load_any_recipe(recipe, overrides)), nl=False)

    @config.command()
    def schema(
        kind: Annotated[
            Literal["language", "vision", "documents"],
            typer.Argument(help="Recipes of which models, or of documents alone."),
        ] = "language",
    ) -> None:
        """Print the JSON schema of recipes. Example: feldspar config schema > recipe.schema.json"""
        from feldspar.cli.console import print_json
        from feldspar.recipe.data_root import DataRecipe
        from feldspar.recipe.root import Recipe
        from feldspar.recipe.vision_root import VisionRecipe

        roots = {"language": Recipe, "vision": VisionRecipe, "documents": DataRecipe}
        print_json(roots[kind].model_json_schema(by_alias=True))
