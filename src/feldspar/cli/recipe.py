"""``feldspar recipe``: the recipes that come with the package."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    recipe = typer.Typer(help="List, show and copy the shipped recipes.")
    app.add_typer(recipe, name="recipe")

    @recipe.command("list")
    def list_recipes(
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """List the shipped recipes. Example: feldspar recipe list"""
        import feldspar
        from feldspar.cli.console import print_json
        from feldspar.cli.tables import print_table

        described = feldspar.shipped_recipes()
        if json:
            print_json(described)
            return
        print_table(("", ""), described.items(), left=2)

    @recipe.command()
    def show(
        name: Annotated[str, typer.Argument(help="Shipped recipe, or a recipe file.")],
    ) -> None:
        """Print a recipe with its parents as one file, which works in the current folder.

        Example: feldspar recipe show btlm/paper > mine.yaml
        """
        from feldspar.recipe.flatten import flat_recipe

        typer.echo(flat_recipe(name, Path.cwd()), nl=False)

    @recipe.command()
    def copy(
        name: Annotated[str, typer.Argument(help="Shipped recipe, or a recipe file.")],
        file: Annotated[
            Path | None, typer.Argument(help="File to write; default NAME.yaml here.")
        ] = None,
        overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
        json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    ) -> None:
        """Write a recipe as a file of your own. Example: feldspar recipe copy btlm/small my.yaml"""
        from feldspar.cli.console import print_json
        from feldspar.cli.next_steps import quoted, tell_next
        from feldspar.recipe.flatten import copy_recipe

        copied = copy_recipe(name, file, overwrite)
        if json:
            print_json({"recipe": str(copied)})
            return
        typer.echo(str(copied))
        recipe_file = quoted(copied)
        tell_next(
            (f"feldspar plan {recipe_file}", "time, memory and parameters"),
            (f"feldspar train {recipe_file}", "build what is missing, then train"),
        )
