"""A page of docs/tutorials as the commands that its reader copies, and what they print.

A block without a language, or of bash, holds commands; a block of text that follows shows what
they print. Numbers of such a block depend on the machine and on the length of a run, so that only
its words are compared. A block of output shows what a model wrote, or what depends on the text.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "tutorials"
BLOCK = re.compile(r"^```([a-z]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
HERE = re.compile(r"<<'(\w+)'")
NUMBER = re.compile(r"None|[-+]?\d(?:[\d,.:e+-]*\d)?%?")
UNIT = re.compile(r"[kMGT]?B|ms|s|seconds|minutes?")
COMMANDS, PRINTED = ("", "bash"), "text"
LEFT_OUT = "..."


@dataclass
class Step:
    """A command, and the lines that the page says that it and those before it print."""

    command: str
    shown: list[str] = field(default_factory=list)

    @property
    def words(self) -> list[str] | None:
        """The arguments of feldspar; None for any other command of the shell."""
        if not self.command.startswith("feldspar ") or HERE.search(self.command):
            return None
        words = shlex.split(self.command, comments=True)
        return None if {"|", ">", "&&"} & set(words) else words[1:]


def pages() -> list[str]:
    """Return the names of all tutorials."""
    return sorted(page.stem for page in FOLDER.glob("*.md") if page.stem not in ("README", "index"))


def steps(page: str) -> list[Step]:
    """Return the commands of a page in order, each with what it prints."""
    found: list[Step] = []
    for language, text in BLOCK.findall((FOLDER / f"{page}.md").read_text(encoding="utf-8")):
        if language in COMMANDS:
            found += [Step(command) for command in commands(text)]
        elif language == PRINTED:
            found[-1].shown += text.splitlines()
    return found


def commands(block: str) -> Iterator[str]:
    """Yield the commands of a block: a line each, or more where a quote or a file goes on."""
    lines: list[str] = []
    for line in block.splitlines():
        lines.append(line)
        text = "\n".join(lines)
        if text.strip() and is_whole(text):
            yield text
            lines = []
    assert not "".join(lines).strip(), f"a command without an end: {lines}"


def is_whole(text: str) -> bool:
    """Tell whether the shell would run it now, or wait for another line."""
    if here := HERE.search(text):
        return text.splitlines()[-1] == here[1]
    if text.endswith("\\"):
        return False
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return False
    return True


def unseen(shown: list[str], *streams: str) -> list[str]:
    """Return the shown lines that no stream has after those before them, whatever their numbers."""
    places, missing = [0] * len(streams), []
    for line in (line for line in shown if line.strip() != LEFT_OUT):
        words = re.compile(pattern(line))
        for number, stream in enumerate(streams):
            if found := words.search(stream, places[number]):
                places[number] = found.end()
                break
        else:
            missing.append(line)
    return missing


def pattern(line: str) -> str:
    """Return the expression of a line: its words, with any numbers, units and widths of columns."""
    parts = []
    for word in line.split():
        if word == LEFT_OUT:
            parts.append(".*")
        elif UNIT.fullmatch(word):
            parts.append(r"\w+")
        else:
            parts.append(r"\S*".join(re.escape(part) for part in NUMBER.split(word)))
    return r"\s+".join(parts).replace(r".*\s+", r".*").replace(r"\s+.*", ".*")
