"""Sets of target characters: scripts by name, or the characters themselves.

A character belongs to a script if its Unicode name contains the script's name ("ARABIC COMMA",
"COMBINING CYRILLIC TITLO", "EXTENDED ARABIC-INDIC DIGIT ONE"). Unlike the property Script this
includes the script's own punctuation, marks and digits, which Unicode shares between scripts, and
it needs no table.
"""

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cached_property

from feldspar.core.errors import UserError, nearest
from feldspar.tokens.tokenizer.pretokens import character_ranges

SAMPLED_CHARACTERS = 2_000_000
ROW = 64
"""Number of code points that share all bytes of UTF-8 but the last."""
OTHER_NAMES = {"HAN": "CJK"}


class TargetCharacters:
    """A set of characters; each new token contains at least one of them."""

    def __init__(self, code_points: Iterable[int], description: str) -> None:
        self._codes = frozenset(code_points)
        self.description = description
        """Names of scripts, or the characters."""

    @classmethod
    def of_scripts(cls, names: tuple[str, ...]) -> "TargetCharacters":
        """Return all characters of scripts such as ``arabic`` or ``old persian``.

        Unassigned code points belong to a script if all characters of their row do, so that a
        script's UTF-8 prefixes belong to it alone. Raises UserError for an unknown name.
        """
        codes: set[int] = set()
        for name in names:
            word = OTHER_NAMES.get(name.upper(), name.upper())
            pattern = re.compile(rf"(?<![A-Z]){re.escape(word)}(?![A-Z])")
            found = {c for c, known in _named_characters() if pattern.search(known)}
            if not found:
                hint = nearest(name.lower(), _script_names())
                raise UserError(
                    f"no character of Unicode belongs to a script {name!r}"
                    + (f"; did you mean {hint!r}?" if hint else "")
                )
            codes |= found
        for row in {code // ROW for code in codes}:
            members = range(row * ROW, row * ROW + ROW)
            unassigned = {c for c in members if unicodedata.category(chr(c)) == "Cn"}
            if codes | unassigned >= set(members):
                codes |= unassigned
        return cls(codes, ", ".join(names))

    @classmethod
    def of_characters(cls, characters: str) -> "TargetCharacters":
        """Return the set of these characters. Raises UserError for spaces and control
        characters."""
        for character in characters:
            if character.isspace() or unicodedata.category(character)[0] in "CZ":
                raise UserError(f"U+{ord(character):04X} cannot be a target character")
        if not characters:
            raise UserError("there is no target character")
        return cls(map(ord, characters), characters)

    def __contains__(self, character: str) -> bool:
        return ord(character) in self._codes

    def holds_row(self, code: int) -> bool:
        """Tell whether the set has all code points that share the UTF-8 prefix of ``code``."""
        first = code - code % ROW
        return all(member in self._codes for member in range(first, first + ROW))

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Pattern that finds a character of the set."""
        return re.compile(f"[{character_ranges(sorted(self._codes))}]")


def dominant_script(texts: Iterable[str]) -> str:
    """Return the script of most letters at the start of ``texts``. Raises UserError if there is no
    letter."""
    characters: Counter[str] = Counter()
    for text in texts:
        characters.update(text)
        if characters.total() > SAMPLED_CHARACTERS:
            break
    scripts: Counter[str] = Counter()
    for character, count in characters.items():
        if character.isalpha():
            scripts[unicodedata.name(character, "?").split()[0].split("-")[0].lower()] += count
    if not scripts:
        raise UserError("the target text has no letter, so its script is unknown")
    return min(scripts, key=lambda name: (-scripts[name], name))


def code_points(text: str) -> str:
    """Return ``text`` as code points, such as U+0627 U+0644; no terminal reorders them."""
    return " ".join(f"U+{ord(character):04X}" for character in text)


def _named_characters() -> Iterable[tuple[int, str]]:
    for code in range(sys.maxunicode + 1):
        if name := unicodedata.name(chr(code), ""):
            yield code, name


def _script_names() -> set[str]:
    letters = (name for _, name in _named_characters() if " LETTER " in name)
    return {name.split(" LETTER ")[0].lower().removesuffix(" small") for name in letters}
