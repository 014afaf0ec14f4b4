"""Navigation: a hub leads to the pages that the items of its lists begin with, in their order.

The sidebar therefore follows what the pages say. A page that no hub names is in no list: Sphinx
warns of it, and the build fails.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from feldspar_site.staging import Page

SECTIONS = {
    "tutorials": "Tutorials",
    "how-to": "How-to",
    "reference": "Reference",
    "results": "Results",
    "benchmarks": "Benchmarks",
    "internals": "Internals",
}
"""The sidebar after the start page: pages and their short names."""
HUBS = (
    "tutorials.md",
    "how-to.md",
    "reference.md",
    "reference/commands.md",
    "reference/recipe-keys.md",
    "reference/recipes.md",
    "results.md",
    "papers.md",
    "internals.md",
)
ENTRY = re.compile(r"^[*-] (?:!\[[^\]]*\]\([^)]*\)\s+)?\**\[[^\n]*?\]\(([^)#]+\.md)\)", re.MULTILINE)
"""An item of a list that begins with a link to a page; a picture may stand before it."""


def add_navigation(pages: Mapping[str, Page]) -> dict[str, Page]:
    """Return the pages, with hidden lists of their children in the start page and in the hubs."""
    done = dict(pages)
    places = {page.origin: name for name, page in pages.items()}
    for hub in HUBS:
        done[hub] = with_children(pages[hub], children(pages[hub], places))
    entries = [f"{title} <{name}>" for name, title in SECTIONS.items()]
    done["index.md"] = with_children(pages["index.md"], ["Start <self>", *entries])
    return done


def children(page: Page, places: Mapping[str, str]) -> list[str]:
    """Return the pages that the items of a hub's lists begin with, as Sphinx names them."""
    found = []
    for target in ENTRY.findall(page.text):
        file = os.path.normpath(PurePosixPath(page.origin).parent / target)
        found.append("/" + places.get(file, file).removesuffix(".md"))
    return list(dict.fromkeys(found))


def with_children(page: Page, entries: list[str]) -> Page:
    """Return the page with a hidden list of its children at its end."""
    lines = [":hidden:", "", *entries]
    toctree = "\n".join(["```{toctree}", *lines, "```"])
    return replace(page, text=f"{page.text.rstrip()}\n\n{toctree}\n")


def cards(pages: Mapping[str, Page], folder: str) -> str:
    """Return a list of the pages of a folder in docs/: each title as a link, and how it begins."""
    items = []
    for name, page in sorted(pages.items()):
        if name.startswith(folder):
            title, first = beginning(page.text)
            items.append(f"* [**{title}**]({name})\n\n  {first}\n")
    return "\n".join(items)


def beginning(text: str) -> tuple[str, str]:
    """Return the title of a page and the first sentence of its first paragraph."""
    title, _, rest = text.partition("\n")
    paragraph = " ".join(rest.strip().split("\n\n")[0].split())
    sentence = re.match(r".*?[.!?](?= |$)", paragraph)
    return title.removeprefix("# "), sentence[0] if sentence else paragraph
