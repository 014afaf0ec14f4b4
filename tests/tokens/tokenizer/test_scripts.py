"""Target characters, against the Unicode tables of another library."""

import sys
import unicodedata

import pytest

from feldspar.core.errors import UserError
from feldspar.tokens.tokenizer.scripts import (
    TargetCharacters,
    code_points,
    dominant_script,
)


@pytest.mark.parametrize(
    ("script", "outside"), [("Devanagari", 0), ("Hebrew", 0), ("Thai", 0), ("Cyrillic", 1)]
)
def test_names_hold_the_script_property(script: str, outside: int) -> None:
    """Cyrillic's one letter without the word in its name is SLAVONIC ASTERISK."""
    regex = pytest.importorskip("regex")
    target = TargetCharacters.of_scripts((script.lower(),))
    text = "".join(c for c in map(chr, range(0x20000)) if unicodedata.name(c, ""))
    members = regex.findall(rf"\p{{Script={script}}}", text)
    assert len(members) > 80
    assert sum(member not in target for member in members) == outside


def test_a_script_has_its_own_marks_digits_and_punctuation() -> None:
    arabic = TargetCharacters.of_scripts(("arabic",))
    assert all(c in arabic for c in "اﷲپ\u064b\u0640،؟٣۳")
    assert not any(c in arabic for c in "aé3 ,?▁י")
    assert "\u0964" in TargetCharacters.of_scripts(("devanagari",))
    both = TargetCharacters.of_scripts(("arabic", "hebrew"))
    assert "ا" in both and "א" in both and both.description == "arabic, hebrew"
    assert "中" in TargetCharacters.of_scripts(("han",))


def test_the_pattern_finds_the_characters() -> None:
    thai = TargetCharacters.of_scripts(("thai",))
    every = "".join(c for c in map(chr, range(sys.maxunicode + 1)) if c.isprintable())
    assert thai.pattern.sub("", every) == "".join(c for c in every if c not in thai)


def test_rows_of_a_script_are_its_own() -> None:
    thai, greek = (TargetCharacters.of_scripts((name,)) for name in ("thai", "greek"))
    assert unicodedata.name(chr(0xE00), "") == "" and thai.holds_row(0xE01)
    assert not thai.holds_row(0xE40 + 64)
    assert not greek.holds_row(0x3E0)  # Coptic letters are among them


def test_names_and_characters_that_are_refused() -> None:
    with pytest.raises(UserError, match="'arabik'; did you mean 'arabic'"):
        TargetCharacters.of_scripts(("arabik",))
    for character in (" ", "\n", "\u200b", "\ue000"):
        with pytest.raises(UserError, match=rf"U\+{ord(character):04X} cannot be a target"):
            TargetCharacters.of_characters(f"é{character}")
    with pytest.raises(UserError, match="no target character"):
        TargetCharacters.of_characters("")
    assert [c in TargetCharacters.of_characters("éè") for c in "éèe"] == [True, True, False]


def test_the_script_of_most_letters() -> None:
    assert dominant_script(["abc", "ابجدهوز 1234567890 ،،،"]) == "arabic"
    assert dominant_script(["что is это"]) == "cyrillic"
    assert dominant_script(["漢字"]) == "cjk"
    with pytest.raises(UserError, match="no letter"):
        dominant_script(["12 3", ""])


def test_code_points_need_no_display() -> None:
    assert code_points("ال") == "U+0627 U+0644"
