"""The generated pages of the site hold everything that the code has."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from pydantic import BaseModel

from feldspar.cli.main import application
from feldspar.recipe.keys import all_keys
from feldspar.recipe.root import Recipe
from feldspar.recipe.shipped import shipped_names
from feldspar.recipe.vision_root import VisionRecipe
from feldspar_site.commands import command_pages, help_parts
from feldspar_site.recipe_keys import recipe_key_pages
from feldspar_site.shipped_recipes import shipped_recipe_pages


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command with its words."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


def test_every_command_option_and_example_is_on_a_page() -> None:
    pages = command_pages()
    for path, command in commands(typer.main.get_command(application())):
        text = pages[f"reference/commands/{path[0]}.md"] if path else pages["reference/commands.md"]
        if path:
            heading = f"{'#' * len(path)} feldspar {' '.join(path)}\n"
            assert heading in text
            text = text.partition(heading)[2].partition("\n#")[0]
            assert all(example in text for example in help_parts(command)[1])
        if path and hasattr(command, "commands"):
            continue  # what a group takes, each of its commands takes too
        for parameter in [own for own in command.params if not getattr(own, "hidden", False)]:
            names = [parameter.metavar] if parameter.metavar else parameter.opts
            assert any(name in text for name in names), (path, parameter.name)


@pytest.mark.parametrize(("root", "prefix"), [(Recipe, ""), (VisionRecipe, "vision-")])
def test_every_key_of_a_recipe_is_defined_on_its_page(root: type[BaseModel], prefix: str) -> None:
    pages = recipe_key_pages()
    for key, field in all_keys(root):
        name = f"reference/recipe-keys/{prefix}{key.partition('.')[0].replace('_', '-')}.md"
        text = pages.get(name, pages["reference/recipe-keys.md"])
        defined = f"\n`{key}`\n" in text or (name in pages and "." not in key)
        assert defined, key
        if "." in key and not field.is_required() and field.default is not None:
            told = [part.partition("\n`")[0] for part in text.split(f"\n`{key}`\n")[1:]]
            assert any("Default: " in part for part in told), key


def test_limits_choices_and_defaults_are_told_in_words() -> None:
    pages = recipe_key_pages()
    model = pages["reference/recipe-keys/model.md"]
    assert "Whole number at least 1, at most 10,000. Required." in model
    assert 'One of `none`, `head`, `whole`. Default: `"none"`.' in model
    assert "A section with `type` `alibi` or `learned` or `none` or `rotary`." in model
    assert "## `model.positions`, `type: rotary`" in model
    assert "Number above 0, at most 1. Default: `1.0`." in model
    assert "Amount with a unit. Required." in pages["reference/recipe-keys/phases.md"]


def test_every_shipped_recipe_is_shown() -> None:
    pages = shipped_recipe_pages()
    for name in shipped_names():
        text = pages[f"reference/recipes/{name.partition('/')[0]}.md"]
        section = text.partition(f"## {name}\n")[2].partition("\n## ")[0]
        assert re.search(r"^schema_version: 1$", section, re.MULTILINE), name
