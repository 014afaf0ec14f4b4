"""Pages of the shipped recipes: what each trains, and its file."""

from pathlib import Path

import feldspar
from feldspar.recipe.shipped import find_recipe
from feldspar_site.commands import as_markdown

HUB = "reference/recipes"
PARENT = "method"
"""Recipe of a paper's folder that the others of the folder extend."""
DATA = "data"
"""Folder of recipes that say only which text is read; others extend them."""
INTRO = """# Shipped recipes
`feldspar recipe list` prints them. `feldspar recipe show NAME` prints one with what it
extends. `feldspar recipe copy NAME` makes it a file of yours.
"""


def shipped_recipe_pages() -> dict[str, str]:
    """Return a page of all shipped recipes, and one for each folder of them."""
    hub, pages, parents = [INTRO], dict[str, list[str]](), dict[str, Path]()
    for name, told in feldspar.shipped_recipes().items():
        folder = name.partition("/")[0]
        file = find_recipe(name)
        if folder not in pages:
            pages[folder] = [f"# {folder}", ""]
            parents[folder] = file.with_name(f"{PARENT}.yaml")
            hub.append(f"* [{folder}](recipes/{folder}.md)")
        pages[folder] += recipe_lines(name, as_markdown(told), file)
        hub.append(f"  * `{name}`: {as_markdown(told)}")
    for folder, file in parents.items():
        if file.is_file():
            pages[folder] += recipe_lines(f"{folder}/{PARENT}", "What the others extend.", file)
    pages[DATA] = [f"# {DATA}", "", "Texts that other recipes extend.", ""]
    for file in sorted((find_recipe("quickstart").parent / DATA).glob("*.yaml")):
        pages[DATA] += recipe_lines(f"{DATA}/{file.stem}", "", file)
    hub += [f"* [{DATA}](recipes/{DATA}.md): texts that other recipes extend", ""]
    texts = {f"{HUB}/{folder}.md": "\n".join(lines) for folder, lines in pages.items()}
    return {f"{HUB}.md": "\n".join(hub), **texts}


def recipe_lines(name: str, told: str, file: Path) -> list[str]:
    """Return the section of a recipe: its description and its file."""
    text = file.read_text(encoding="utf-8").rstrip()
    return [f"## {name}", "", told, "", "```yaml", text, "```", ""]
