"""Sets of target characters: scripts by name, or the characters themselves."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cached_property

from feldspar.core.errors import UserError
from feldspar.corpus.scripts import character_ranges, characters_of_scripts

SAMPLED_CHARACTERS = 2_000_000
ROW = 64
"""Number of code points that share all bytes of UTF-8 but the last."""


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
        codes = characters_of_scripts(names)
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
