"""Items of ``next_code_line``: which of four lines follows in a program of Python's test suite."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.bundled_tasks.sources import shuffled

TESTS = "libpython3.13-testsuite/usr/lib/python3.13/test"
ITEMS = 300
CONTEXT_LINES = 12
CHOICES = 4


def next_line_items(sources: Path) -> list[dict[str, Any]]:
    """Return one item for each file until there are enough, then a second one, and so on.

    The context is the twelve lines before the true line, from the beginning of a function or
    method on. The wrong lines are of the same file and of the same indentation. Every line has 12
    to 72 characters, and the true line uses a name that the context holds.
    """
    files = sorted((sources / TESTS).rglob("test_*.py"))
    names = [path.relative_to(sources / TESTS).as_posix() for path in files]
    by_file = {
        name: shuffled(_items(path.read_text("utf-8")), f"next_code_line {name}")
        for name, path in zip(names, files, strict=True)
        if path.stat().st_size < 200_000
    }
    items: list[dict[str, Any]] = []
    for turn in range(10):
        for name in shuffled(by_file, f"next_code_line {turn}"):
            if turn < len(by_file[name]) and len(items) < ITEMS:
                items.append(by_file[name][turn] | {"file": name})
    return items


def _items(text: str) -> Iterator[dict[str, Any]]:
    lines = text.splitlines()
    usable = [line for line in lines if _is_usable(line)]
    begin = 0
    for place, line in enumerate(lines):
        if re.match(r"\s*(async )?def ", line):
            begin = place
        if not _is_usable(line) or place - begin < 4:
            continue
        context = lines[max(begin, place - CONTEXT_LINES) : place]
        if not context[-1].strip() or line in context or "\n".join(context).count('"""') % 2:
            continue
        names = set(re.findall(r"[a-z_]{4,}", line.split("assert")[0])) - {"self"}
        if not names & set(re.findall(r"[a-z_]{4,}", "\n".join(context))):
            continue
        indent = _indent(line)
        same = dict.fromkeys(each for each in usable if _indent(each) == indent and each != line)
        others = [each for each in shuffled(same, line) if each not in context][: CHOICES - 1]
        if len(others) == CHOICES - 1:
            choices = shuffled([line, *others], "choices")
            answer = choices.index(line)
            yield {"context": "\n".join(context), "choices": choices, "answer": answer}


def _is_usable(line: str) -> bool:
    plain = line.strip()
    return 12 <= len(plain) <= 72 and plain.isascii() and not plain.startswith(("#", "def ", '"'))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
