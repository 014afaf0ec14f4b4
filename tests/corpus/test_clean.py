"""Cleaning equals its definition; normalisation does what its names say."""

import re
import string

from hypothesis import given
from hypothesis import strategies as st

from feldspar.corpus.clean import cleaned, normalised


def by_definition(text: str) -> str:
    lowered = text.lower().translate(str.maketrans("", "", string.punctuation)).strip()
    return re.sub(r"\s+", " ", lowered)


@given(st.text(st.characters() | st.sampled_from(" \t\n\x1c\x1f\x85\u2028.,!-\u0130\u03a3")))
def test_cleaned_equals_the_published_definition(text: str) -> None:
    assert cleaned(text) == by_definition(text)


def test_normalisation() -> None:
    composed = "caf\u00e9"
    assert normalised("cafe\u0301", "nfc") == composed
    assert normalised("cafe\u0301", "none") == "cafe\u0301"
    assert normalised("caf\u00c3\u00a9 \u201cx\u201d", "ftfy") == 'caf\u00e9 "x"'
