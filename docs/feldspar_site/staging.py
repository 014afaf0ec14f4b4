"""Write pages as Sphinx reads them: links between files of the repository become links of the site.

A page of the repository links as on GitHub: by paths relative to itself. On the site a page may lie
elsewhere (CONTRIBUTING.md is contributing/rules.md there), and files that are no pages, such as
pictures and records, are copied beside the pages.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from feldspar.core.errors import UserError

CODE_OR_LINK = re.compile(
    r"(?P<code>^(?P<fence>`{3,}).*?^(?P=fence)|`+[^`\n]+`+)"
    r"|(?P<before>\]\(|\b(?:src|srcset|href)=\")(?P<target>[^)\s\"#]+)",
    re.DOTALL | re.MULTILINE,
)
"""Code, which is left as it is, or the target of a link or a picture, in Markdown or in HTML."""
ELSEWHERE = re.compile(r"[a-z]+:")
FILES = "files"
"""Folder of the site for files outside docs/ that pages link to."""


@dataclass(frozen=True)
class Page:
    """A page of the site as Markdown."""

    text: str
    origin: str
    """Its file in the repository, to which its links are relative. A generated page has a place
    there too, without a file."""


def stage(pages: Mapping[str, Page], root: Path, target: Path) -> None:
    """Make the folder ``target`` hold the pages, by their names there, and the files they link to.

    Unchanged files are not written again, so that Sphinx reads only the others; files of an earlier
    build are removed. Raises UserError where a page links to a file that does not exist.
    """
    places = {page.origin: name for name, page in pages.items()}
    wanted: dict[str, bytes] = {}
    for name, page in pages.items():
        text, files = relinked(page, name, places, root)
        wanted |= {place: (root / file).read_bytes() for place, file in files.items()}
        wanted[name] = text.encode()
    for old in [path for path in target.rglob("*") if path.is_file()]:
        if old.relative_to(target).as_posix() not in wanted:
            old.unlink()
    for name, content in wanted.items():
        path = target / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def relinked(
    page: Page, name: str, places: Mapping[str, str], root: Path
) -> tuple[str, dict[str, str]]:
    """Return the text of a page with its links as they must be where the site has it.

    Also return the files that are no pages, by their places on the site.
    """
    files: dict[str, str] = {}

    def replaced(match: re.Match[str]) -> str:
        target = match["target"]
        if match["code"] or ELSEWHERE.match(target):
            return match[0]
        file = os.path.normpath(PurePosixPath(page.origin).parent / target)
        place = places.get(file)
        if place is None:
            if not (root / file).is_file():
                raise UserError(
                    f"{page.origin} links to {target}, which is no file",
                    do="name a file, relative to the page",
                )
            if file.endswith(".md"):
                raise UserError(
                    f"{page.origin} links to {target}, which is no page of the site",
                    do="name it in RENAMED in docs/feldspar_site/pages.py, and in a list",
                )
            place = file.removeprefix("docs/") if file.startswith("docs/") else f"{FILES}/{file}"
            files[place] = file
        return match["before"] + os.path.relpath(place, PurePosixPath(name).parent)

    return CODE_OR_LINK.sub(replaced, page.text), files
