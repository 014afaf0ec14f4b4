"""The pattern in Python finds the pre-tokens that the tokenizer's own finds, or declines."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from feldspar.tokens.tokenizer.pretokens import pattern_for

BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False)


def reference(text: str) -> list[str]:
    return [text[start:end] for _, (start, end) in BYTE_LEVEL.pre_tokenize_str(text)]


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_text(text: str) -> None:
    pattern = pattern_for(text)
    if pattern is not None:
        assert pattern.findall(text) == reference(text)


@given(st.text(st.sampled_from(" \t\n\r\x0b\x1c\x85\xa0ab1'st!_é東٣²\u3000"), max_size=30))
def test_the_awkward_characters(text: str) -> None:
    pattern = pattern_for(text)
    assert pattern is not None
    assert pattern.findall(text) == reference(text)


@pytest.mark.parametrize(
    "text", ["don't we'll I'm they've 's", "a  b   c\n\n d ", "x_1 +=  2\t\t#", "'''quoted'''"]
)
def test_contractions_and_runs_of_space(text: str) -> None:
    pattern = pattern_for(text)
    assert pattern is not None
    assert pattern.findall(text) == reference(text)


def test_every_character_of_the_stable_set_has_the_same_class() -> None:
    checked = 0
    for first in range(0, sys.maxunicode, 256):
        block = [chr(c) for c in range(first, first + 256) if not 0xD800 <= c <= 0xDFFF]
        stable = [c for c in block if pattern_for(f"é{c}") is not None]
        # Between a letter, a digit and a sign, every class shows itself.
        text = "".join(f"é{c}1{c}.{c} {c}" for c in stable)
        if stable:
            pattern = pattern_for(text)
            assert pattern is not None
            assert pattern.findall(text) == reference(text)
            checked += len(stable)
    assert checked > 90_000
