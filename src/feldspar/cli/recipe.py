"""``feldspar recipe``: the recipes that come with the package."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    recipe = typer.Typer(help="List and show the shipped recipes.")
    app.add_typer(recipe, name="recipe")

    @recipe.command("list")
    def list_recipes(
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """List the shipped recipes. Example: feldspar recipe list"""
        from feldspar.cli.console import print_json
        from feldspar.recipe import load_any_recipe, shipped_names

        described = {name: load_any_recipe(name).recipe.description for name in shipped_names()}
        if json:
            print_json(described)
            return
        for name, description in described.items():
            typer.echo(f"{name:24} {description}")

    @recipe.command()
    def show(name: str) -> None:
        """Print a shipped recipe as it is written. Example: feldspar recipe show btlm/paper"""
        from feldspar.recipe import find_recipe

        typer.echo(find_recipe(name).read_text(encoding="utf-8"), nl=False)
