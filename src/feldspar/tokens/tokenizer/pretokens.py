r"""Pre-token pattern of byte-level BPE (GPT-2) for Python's ``re``, if it is exact for a text.

BPE never merges across pre-tokens, and code and prose repeat few of them, so looking up the ids of
each pre-token is the fastest way to encode. Python's ``\s`` and ``\w`` differ from the Unicode
properties in the original pattern, and Python's Unicode tables may be newer than the tokenizer's.
So the classes are written out, over the characters whose category has not changed since Unicode
3.2. A text with any other character has no pattern (``None``) and is encoded by the library.
"""

import re
import sys
import unicodedata
from functools import lru_cache

from feldspar.corpus.scripts import character_ranges

_SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_LAST_ASSIGNED_3_2 = 0x2FFFF


def _pattern(letter: str, number: str, space: str) -> re.Pattern[str]:
    # Most pre-tokens are words, so words are tried first. This changes nothing: a letter can only
    # start the second alternative of the original pattern.
    return re.compile(
        f" ?[{letter}]+|'(?:[stmd]|re|ve|ll)| ?[{number}]+| ?[^{space}{letter}{number}]+"
        f"|[{space}]+(?![^{space}])|[{space}]+"
    )


_ASCII = _pattern("A-Za-z", "0-9", r"\t-\r ")


def pattern_for(text: str) -> re.Pattern[str] | None:
    """Return a pattern whose ``findall`` gives the pre-tokens of ``text``, or None."""
    if text.isascii():
        return _ASCII
    unicode_pattern, unstable = _unicode_patterns()
    return None if unstable.search(text) else unicode_pattern


@lru_cache(maxsize=1)
def _unicode_patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return the pattern over stable characters, and a pattern that finds any other character."""
    members: dict[str, list[int]] = {"L": [], "N": [], "other": []}
    for code in range(min(_LAST_ASSIGNED_3_2, sys.maxunicode) + 1):
        character = chr(code)
        old = unicodedata.ucd_3_2_0.category(character)
        new = unicodedata.category(character)
        if old[0] == new[0] and old != "Cn" and old != "Cs":
            members[old[0] if old[0] in "LN" else "other"].append(code)
    letter, number, other = (character_ranges(codes) for codes in members.values())
    return _pattern(letter, number, _SPACE), re.compile(f"[^{letter}{number}{other}]")
