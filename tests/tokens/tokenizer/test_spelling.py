"""Which pieces may be added to which vocabulary."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from feldspar.core.errors import UserError
from feldspar.core.progress import SilentListener, listening
from feldspar.recipe.sections.tokens import ExtendWith
from feldspar.tokens.tokenizer.bpe import byte_characters
from feldspar.tokens.tokenizer.extend import extend_tokenizer
from feldspar.tokens.tokenizer.scripts import TargetCharacters
from feldspar.tokens.tokenizer.spelling import (
    ByteSpelling,
    Spelling,
    assigned_characters,
    spelling_of,
)
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from tests.tokens.bases import base, cipher, english

ARABIC = TargetCharacters.of_scripts(("arabic",))
HINDI = TargetCharacters.of_scripts(("devanagari",))
SPACE = "Ġ"


@pytest.mark.parametrize("piece", ["ا", "▁ا", "السلام", "٣", "؟"])
def test_pieces_that_fit(piece: str) -> None:
    assert Spelling(ARABIC, splits_digits=True).fits(piece)


@pytest.mark.parametrize("piece", ["", "▁", "▁▁ا", "ا▁", "aا", "ا3", "<0xD8>", "</s>", "ا٣", "▁٣"])
def test_pieces_that_do_not(piece: str) -> None:
    assert not Spelling(ARABIC, splits_digits=True).fits(piece)


def test_digits_may_join_where_the_base_joins_them() -> None:
    assert Spelling(ARABIC, splits_digits=False).fits("٣٣")
    assert spelling_of(base("llama"), ARABIC).splits_digits


def test_bytes_that_only_target_characters_have() -> None:
    hindi, arabic = ByteSpelling(HINDI, False), ByteSpelling(ARABIC, False)
    spelled = hindi.spelled("क")
    assert hindi.fits(spelled) and hindi.fits(SPACE + spelled + spelled)
    assert hindi.fits(spelled[:2]) and hindi.fits(SPACE + spelled[:2])
    assert hindi.prefix(spelled) == spelled[:2]
    assert not hindi.fits(spelled[:1]) and not hindi.fits(spelled[1:])
    assert not hindi.fits(spelled + spelled[:1])
    assert not hindi.fits(hindi.spelled("ก")[:2])
    assert arabic.fits(arabic.spelled("ال")) and arabic.prefix(arabic.spelled("ا")) is None
    # The row of U+FDC0 to U+FDFF holds noncharacters: its bytes are not Arabic's alone.
    assert arabic.prefix(arabic.spelled("\ufdfa")) is None


def test_characters_of_bytes() -> None:
    spelling = ByteSpelling(HINDI, False)
    piece = spelling.spelled("aकé")
    a, ka, e = spelling.spelled("a"), spelling.spelled("क"), spelling.spelled("é")
    assert spelling.characters(piece) == [a, ka, e]
    assert spelling.characters(piece[:-1]) == [a, ka, e[:1]]
    assert spelling.characters(piece[2:]) == [ka[1], ka[2], e]
    assert spelling.place_of(ka[1:]) == "inside"
    assert spelling.place_of(SPACE) == spelling.place_of(SPACE + ka) == "start"
    assert spelling.place_of(ka + a) == "elsewhere"
    assert spelling.place_of("<|endoftext|>") == "elsewhere"


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_bytes_are_written_as_the_library_writes_them(text: str) -> None:
    spelling = ByteSpelling(ARABIC, False)
    written = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    assert spelling.spelled(text) == "".join(w for w, _ in written.pre_tokenize_str(text))
    assert spelling.text(spelling.spelled(text)) == text
    assert "".join(spelling.characters(spelling.spelled(text))) == spelling.spelled(text)
    assert len(set(byte_characters())) == 256


def changed(kind: str, **options: Any) -> TextTokenizer:
    """A base with other options of its model."""
    parts = json.loads(base(kind).to_json())
    parts["model"] |= options
    return TextTokenizer(Tokenizer.from_str(json.dumps(parts)), "</s>")


def of_model(model: Any) -> TextTokenizer:
    return TextTokenizer(Tokenizer(model), "</s>")


def test_bases_that_cannot_be_extended() -> None:
    words = of_model(models.WordPiece({"</s>": 0, "a": 1}, unk_token="</s>"))
    vocab = json.loads(base("gpt2").to_json())["model"]["vocab"]
    refused = [
        (words, "WordPiece tokenizer cannot"),
        (of_model(models.BPE({"</s>": 0, "a": 1}, [])), "neither byte-level nor"),
        (
            of_model(models.BPE({"</s>": 0, "a": 1}, [], byte_fallback=True)),
            "256 of the 256",
        ),
        (changed("llama", dropout=0.1), "with dropout"),
        (changed("gpt2", end_of_word_suffix="</w>"), "with end_of_word_suffix"),
        (changed("gpt2", vocab={"</s>": 0, "a": 1}, merges=[]), "255 of the 256"),
    ]
    for tokenizer, message in refused:
        with pytest.raises(UserError) as caught:
            spelling_of(tokenizer, ARABIC)
        assert message in str(caught.value.what) + str(caught.value.found)
    assert isinstance(spelling_of(changed("gpt2", vocab=vocab), ARABIC), ByteSpelling)


LACKING = (0xC0, 0xC1, *range(0xF5, 0x100), 0xF1, 0xF2, 0x00, 0x01, 0x04, 0x06, 0x14, 0x16)
"""The 21 bytes that SmolLM2 lacks: no UTF-8, unassigned planes, control characters."""


def without_bytes(kind: str, lacking: Iterable[int]) -> TextTokenizer:
    """A base without the tokens of some bytes, and without the merges that need them."""
    model = json.loads(base(kind).to_json())["model"]
    names = byte_characters() if kind == "gpt2" else [f"<0x{byte:02X}>" for byte in range(256)]
    gone = {names[byte] for byte in lacking}
    kept = [p for p in model["vocab"] if p not in gone and (kind != "gpt2" or not gone & set(p))]
    merges = [pair for pair in model["merges"] if {*pair, "".join(pair)} <= set(kept)]
    return changed(kind, vocab={piece: place for place, piece in enumerate(kept)}, merges=merges)


class Heard(SilentListener):
    """Keeps the news."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def bytes_of(characters: Iterable[str]) -> set[int]:
    return {byte for character in characters for byte in character.encode()}


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_only_bytes_of_assigned_characters_are_needed(kind: str) -> None:
    spelling_of(without_bytes(kind, LACKING), ARABIC)
    # U+00AD is a soft hyphen: 0xC2 0xAD. 0xF3 leads the plane of tags and of variation selectors.
    for byte in (0xC2, 0xAD, 0xF3):
        with pytest.raises(UserError, match="bytes that assigned characters need") as caught:
            spelling_of(without_bytes(kind, [*LACKING, byte]), ARABIC)
        character = chr(int(str(caught.value.found).split()[0].removeprefix("U+"), 16))
        assert byte in character.encode()


def test_needed_bytes_are_those_of_assigned_characters() -> None:
    # 0xEE and 0xF4 lead private use only; the space is written as U+2581.
    needed = bytes_of(assigned_characters())
    assert set(range(256)) - needed == {*range(0x21), 0x7F, *LACKING[:15], 0xEE, 0xF4}


def test_characters_that_are_tokens_need_no_byte() -> None:
    ascii_bytes = range(0x20, 0x7F)
    spelled = set(json.loads(base("llama").to_json())["model"]["vocab"])
    lacking = [byte for byte in ascii_bytes if chr(byte) in spelled or chr(byte) == " "]
    assert len(lacking) > 20
    spelling_of(without_bytes("llama", lacking), ARABIC)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_target_text_must_be_spelled(kind: str) -> None:
    tokenizer = without_bytes(kind, LACKING)
    settings = ExtendWith(corpus="new", new_tokens=20)
    probes = {"old": english()[:5]}, {"new": cipher()[:5]}
    heard = Heard()
    with listening(heard):
        few = extend_tokenizer(tokenizer, settings, [*cipher(), "\x00"], *probes)
    assert few.vocab_size == tokenizer.vocab_size + 20
    assert any("warning: the base drops 0.00% of the target text" in line for line in heard.lines)
    with pytest.raises(UserError, match=r"the base drops .* of the target text") as caught:
        extend_tokenizer(tokenizer, settings, [*cipher(), "\x00" * 9000], *probes)
    assert "U+0" in str(caught.value.found)


def test_a_space_of_unknown_spelling() -> None:
    parts = json.loads(base("llama").to_json()) | {"normalizer": None}
    tokenizer = Tokenizer.from_str(json.dumps(parts))
    tokenizer.decoder = decoders.Fuse()
    with pytest.raises(UserError, match=r"U\+2581 for the space"):
        spelling_of(TextTokenizer(tokenizer, "</s>"), ARABIC)
