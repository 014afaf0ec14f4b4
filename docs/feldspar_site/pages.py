"""All pages of the site, by their names there: those of the repository and the generated ones."""

from pathlib import Path

from feldspar_site.commands import command_pages
from feldspar_site.gallery import gallery_page
from feldspar_site.navigation import add_navigation, tutorial_cards
from feldspar_site.python_api import python_page
from feldspar_site.recipe_keys import recipe_key_pages
from feldspar_site.shipped_recipes import shipped_recipe_pages
from feldspar_site.staging import Page

ROOT = Path(__file__).parents[2]
README = "README.md"
RENAMED = {
    "docs/results/README.md": "results/claims.md",
    "CONTRIBUTING.md": "contributing/rules.md",
    "CHANGELOG.md": "changelog.md",
    "src/feldspar/evaluate/tasks/bundled/README.md": "methods/bundled-tasks.md",
}
"""Pages that lie outside docs/, or elsewhere on the site than in it, and their places there."""
BEGINNING_OF_README, TUTORIALS = "<!-- the beginning of README -->", "<!-- tutorials -->"
"""Marks in docs/index.md, in whose places these come."""

REFERENCE = """# Reference
These pages are generated from the code of this version.

* [**Commands**](reference/commands.md)

  Every command with its arguments, options and examples.
* [**Recipe keys**](reference/recipe-keys.md)

  Every key of a recipe with its type, limits and default.
* [**Shipped recipes**](reference/recipes.md)

  Every recipe that comes with feldspar, with its text.
* [**Papers**](papers.md)

  What the recipes of each paper do, what they need, and how its experiment is designed.
* [**Python API**](reference/python.md)

  Every function and class of `import feldspar`.

The [exit codes](architecture.md#exit-codes) of commands, and the [folders](\
architecture.md#folders-on-the-way) that they write, stand on the page of the architecture.
"""


def all_pages() -> dict[str, Page]:
    """Return every page of the site."""
    written = written_pages(ROOT)
    generated = {
        "tutorials.md": tutorials_page(written),
        "reference.md": REFERENCE,
        **command_pages(),
        **recipe_key_pages(),
        **shipped_recipe_pages(),
        "reference/python.md": python_page(),
        "papers.md": papers_page(written),
        "results.md": gallery_page(ROOT / "docs" / "results"),
    }
    pages = {**written, **{name: Page(text, f"docs/{name}") for name, text in generated.items()}}
    pages["index.md"] = start_page(written, (ROOT / README).read_text(encoding="utf-8"))
    return add_navigation(pages)


def written_pages(root: Path) -> dict[str, Page]:
    """Return the pages that are files of the repository."""
    papers = {
        f"src/feldspar/papers/{path.parent.name}/README.md": f"papers/{path.parent.name}.md"
        for path in (root / "src" / "feldspar" / "papers").glob("*/README.md")
    }
    docs = {
        path.relative_to(root).as_posix(): path.relative_to(root / "docs").as_posix()
        for path in (root / "docs").rglob("*.md")
    }
    places = docs | papers | RENAMED
    return {
        name: Page(with_picture((root / file).read_text(encoding="utf-8"), root / file), file)
        for file, name in sorted(places.items())
    }


def with_picture(text: str, file: Path) -> str:
    """Return a page with the picture of the same name below its title, if it does not show it."""
    picture = file.with_suffix(".svg")
    if not picture.is_file() or f"({picture.name})" in text:
        return text
    title, _, rest = text.partition("\n")
    return f"{title}\n\n![Figure: {title.removeprefix('# ')}]({picture.name})\n{rest}"


def tutorials_page(pages: dict[str, Page]) -> str:
    """Return the page of all tutorials: a card for each."""
    return (
        "# Tutorials\n\nEach tutorial is copied line by line and needs no other page.\n\n"
        + tutorial_cards(pages)
    )


def papers_page(pages: dict[str, Page]) -> str:
    """Return the page of all papers' recipes."""
    items = [
        f"* [{page.text.partition(chr(10))[0].removeprefix('# ')}](../{page.origin})"
        for name, page in sorted(pages.items())
        if name.startswith("papers/")
    ]
    return "\n".join(["# Papers", "", *items, ""])


def start_page(pages: dict[str, Page], readme: str) -> Page:
    """Return the start page, with the beginning of README and a card for each tutorial."""
    beginning, _, _ = readme.partition("\n## ")
    page = pages["index.md"]
    text = page.text.replace(BEGINNING_OF_README, beginning.replace("](docs/", "]("))
    return Page(text.replace(TUTORIALS, tutorial_cards(pages)), page.origin)
