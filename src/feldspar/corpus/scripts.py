"""Characters of a script, by name.

A character belongs to a script if its Unicode name contains the script's name ("ARABIC COMMA",
"COMBINING CYRILLIC TITLO", "EXTENDED ARABIC-INDIC DIGIT ONE"). Unlike the property Script this
includes the script's own punctuation, marks and digits, which Unicode shares between scripts, and
it needs no table.
"""

import re
import sys
import unicodedata
from collections.abc import Iterable
from functools import cache

from feldspar.core.errors import UserError, nearest

OTHER_NAMES = {"HAN": "CJK"}


def characters_of_scripts(names: Iterable[str]) -> set[int]:
    """Return the code points of scripts such as ``arabic`` or ``old persian``.

    Raises UserError for an unknown name.
    """
    codes: set[int] = set()
    for name in names:
        found = _characters_of(OTHER_NAMES.get(name.upper(), name.upper()))
        if not found:
            hint = nearest(name.lower(), _script_names())
            raise UserError(
                f"no character of Unicode belongs to a script {name!r}"
                + (f"; did you mean {hint!r}?" if hint else "")
            )
        codes |= found
    return codes


def character_ranges(codes: list[int]) -> str:
    """Return ascending code points as the inside of a character class."""
    parts = []
    first = previous = codes[0]
    for code in [*codes[1:], -1]:
        if code != previous + 1:
            parts.append(f"\\U{first:08x}-\\U{previous:08x}")
            first = code
        previous = code
    return "".join(parts)


@cache
def _characters_of(word: str) -> frozenset[int]:
    """Return the code points whose names contain a word."""
    pattern = re.compile(rf"(?<![A-Z]){re.escape(word)}(?![A-Z])")
    # Few names hold the letters at all, and ``in`` tells these faster than the pattern.
    return frozenset(c for c, name in _named_characters() if word in name and pattern.search(name))


def _named_characters() -> Iterable[tuple[int, str]]:
    for code in range(sys.maxunicode + 1):
        if name := unicodedata.name(chr(code), ""):
            yield code, name


def _script_names() -> set[str]:
    letters = (name for _, name in _named_characters() if " LETTER " in name)
    return {name.split(" LETTER ")[0].lower().removesuffix(" small") for name in letters}
