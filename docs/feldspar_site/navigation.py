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
TUTORIALS = "tutorials"
READERS = {
    "train-on-your-own-text": "You have files of your own.",
    "adapt-an-open-model": "You want an open model to answer in your way.",
    "teach-a-language": "You want an open model to read your language.",
    "clean-a-corpus": "You prepare text for others to train on.",
    "plan-and-run-a-family": "You plan a large run.",
    "sparse-training": "You want the same model for less compute.",
    "long-context": "You have long texts.",
    "vision": "You work on images.",
}
"""For whom each tutorial is, in the order in which the site shows them; others come after these."""
ENTRY = re.compile(r"^\* \[(?P<words>[^\n]*?)\]\((?P<target>[^)#\n]+\.md)\)", re.MULTILINE)
"""An item of a list that begins with a link to a page."""

PROMISE = re.compile(r"(At the end of|After) this page you (have|can) ")
"""The beginning of a tutorial, which says nothing on a card."""


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
    """Return the pages that the items of a hub's lists begin with, under the words of the links."""
    found = {}
    for match in ENTRY.finditer(page.text):
        file = os.path.normpath(PurePosixPath(page.origin).parent / match["target"])
        place = places.get(file, file).removesuffix(".md")
        found.setdefault(place, re.sub(r"[`*\\]", "", match["words"]))
    return [f"{words} </{place}>" for place, words in found.items()]


def with_children(page: Page, entries: list[str]) -> Page:
    """Return the page with a hidden list of its children at its end."""
    lines = [":hidden:", "", *entries]
    toctree = "\n".join(["```{toctree}", *lines, "```"])
    return replace(page, text=f"{page.text.rstrip()}\n\n{toctree}\n")


def tutorial_cards(pages: Mapping[str, Page]) -> str:
    """Return a list of the tutorials: for whom each is, its title as a link, and how it begins."""
    names = [f"{TUTORIALS}/{stem}.md" for stem in READERS]
    others = sorted(name for name in pages if name.startswith(f"{TUTORIALS}/"))
    items = []
    for name in dict.fromkeys([*names, *others]):
        if name in pages:
            title, first = beginning(pages[name].text)
            reader = READERS.get(PurePosixPath(name).stem)
            told = f"*{reader}*\n\n  {first}" if reader else first
            items.append(f"* [**{title}**]({name})\n\n  {told}\n")
    return "\n".join(items)


def beginning(text: str) -> tuple[str, str]:
    """Return the title of a page, and what its first sentence promises, up to a colon."""
    title, _, rest = text.partition("\n")
    paragraph = " ".join(rest.strip().split("\n\n")[0].split())
    promise = PROMISE.sub("", re.split(r"[.!?:;](?: |$)", paragraph)[0])
    return title.removeprefix("# "), f"{promise[:1].upper()}{promise[1:]}."
