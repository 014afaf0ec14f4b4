"""Pages of the shipped recipes: what each trains, and its text."""

from pathlib import Path

import feldspar
from feldspar.recipe.flatten import flat_recipe
from feldspar_site.commands import as_markdown

HUB = "reference/recipes"


def shipped_recipe_pages() -> dict[str, str]:
    """Return a page of all shipped recipes, and one for each folder of them."""
    pages: dict[str, list[str]] = {}
    for name, told in feldspar.shipped_recipes().items():
        group = name.partition("/")[0]
        lines = pages.setdefault(group, [f"# {group}", ""])
        lines += [f"## {name}", "", as_markdown(told), ""]
        lines += ["```", f"feldspar recipe copy {name}", "```", ""]
        lines += ["```yaml", flat_recipe(name, Path.cwd()).rstrip(), "```", ""]
    hub = ["# Shipped recipes", "", "`feldspar recipe list` prints them.", ""]
    hub += [f"* [`{group}`](recipes/{group}.md)" for group in pages]
    texts = {f"{HUB}/{group}.md": "\n".join(lines) for group, lines in pages.items()}
    return {f"{HUB}.md": "\n".join([*hub, ""]), **texts}
