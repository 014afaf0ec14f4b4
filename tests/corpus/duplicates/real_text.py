"""Real documents that every environment of the tests holds: functions and classes in Python."""

import random
import re
import sysconfig
from pathlib import Path

_BEGINNING = re.compile(r"^(?=(?:def|class|async def|@)\b|@)", re.MULTILINE)
LONGEST, LONGEST_FILE = 6000, 300_000


def definitions(count: int, at_least: int) -> list[str]:
    """``count`` different top-level definitions of ``at_least`` characters, cut at ``LONGEST``.

    They come from the standard library and the installed packages, of which the former alone holds
    more than ten thousand.
    """
    folders = [Path(sysconfig.get_paths()[key]) for key in ("stdlib", "purelib")]
    files = sorted(path for folder in folders for path in folder.rglob("*.py"))
    random.Random(0).shuffle(files)
    found: dict[str, None] = {}
    for file in files:
        text = file.read_text(encoding="utf-8", errors="replace")
        parts = (part[:LONGEST] for part in _BEGINNING.split(text[:LONGEST_FILE]))
        found |= dict.fromkeys(part for part in parts if len(part) >= at_least)
        if len(found) >= count:
            return list(found)[:count]
    raise AssertionError(f"{len(found)} definitions are installed, not {count}")


def edited(text: str, generator: random.Random, share: float) -> str:
    """A copy in which that share of the words is another's, and case and spaces differ."""
    words = text.upper().split()
    return "  ".join(
        f"other{generator.randrange(1000)}" if generator.random() < share else word
        for word in words
    )
