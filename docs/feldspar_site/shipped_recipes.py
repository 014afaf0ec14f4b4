"""Pages of the shipped recipes: what each trains, and its file."""

import feldspar
from feldspar.recipe.shipped import find_recipe
from feldspar_site.commands import as_markdown

HUB = "reference/recipes"
PARENT = "method"
"""Recipe of a paper's folder that the others of the folder extend."""


def shipped_recipe_pages() -> dict[str, str]:
    """Return a page of all shipped recipes, and one for each folder of them."""
    pages: dict[str, list[str]] = {}
    hub = [
        "# Shipped recipes",
        "",
        "`feldspar recipe list` prints them, `feldspar recipe show NAME` prints one with its "
        "parents as one file, and `feldspar recipe copy NAME` makes it yours.",
        "",
    ]
    for name, told in feldspar.shipped_recipes().items():
        folder = name.partition("/")[0]
        if folder not in pages:
            pages[folder] = [f"# {folder}", ""]
            hub += [f"* [{folder}](recipes/{folder}.md)", ""]
        pages[folder] += recipe_lines(name, as_markdown(told))
        hub += [f"  * `{name}`: {as_markdown(told)}"]
    for folder, lines in pages.items():
        if f"{folder}/{PARENT}.yaml" in "".join(lines) or "extends: method.yaml" in "".join(lines):
            lines += recipe_lines(f"{folder}/{PARENT}", "What the paper states as its method.")
    texts = {f"{HUB}/{folder}.md": "\n".join(lines) for folder, lines in pages.items()}
    return {f"{HUB}.md": "\n".join([*hub, ""]), **texts}


def recipe_lines(name: str, told: str) -> list[str]:
    """Return the section of a recipe: its description and its file."""
    text = find_recipe(name).read_text(encoding="utf-8").rstrip()
    return [f"## {name}", "", told, "", "```yaml", text, "```", ""]
