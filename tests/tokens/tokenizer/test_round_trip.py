"""Texts that do not come back are named with the bytes that changed and the first place."""

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from feldspar.core.errors import UserError
from feldspar.core.progress import SilentListener, listening
from feldspar.tokens.tokenizer.round_trip import (
    changed_by,
    require_given_back,
    require_given_back_bytes,
)
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from tests.tokens.bases import KINDS, base

END = "<|end|>"


def by_bytes(lower: bool = False, without: str = "") -> TextTokenizer:
    """One token a byte, lower-casing or without some bytes as asked."""
    letters = sorted({*pre_tokenizers.ByteLevel.alphabet()} - {*without})
    inner = Tokenizer(models.BPE({letter: n for n, letter in enumerate(letters)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    if lower:
        inner.normalizer = normalizers.Lowercase()
    inner.add_special_tokens([END])
    return TextTokenizer(inner, END)


def check(tokenizer: TextTokenizer, *texts: str) -> None:
    require_given_back(tokenizer, texts, tokenizer.encode_documents(texts), "the notes")


TEXT = "plain line\nan A and a B\nlast C"


def test_a_lower_casing_tokenizer() -> None:
    tokenizer = by_bytes(lower=True)
    assert not tokenizer.gives_back_all
    check(tokenizer, TEXT.lower())
    with pytest.raises(UserError, match=r"restore 3 of the 60 bytes of the notes") as caught:
        check(tokenizer, TEXT.lower(), TEXT)
    assert caught.value.where == "line 2, byte 14"
    assert str(caught.value.found).startswith("'A and a B")
    assert (changed_by(tokenizer) or "").startswith("'ABC")


def test_a_vocabulary_that_drops_characters() -> None:
    tokenizer = by_bytes(without="7#")
    assert not tokenizer.gives_back_all and changed_by(tokenizer) is not None
    check(tokenizer, "1 2 3")
    with pytest.raises(UserError, match=r"restore 2 of the 9 bytes of the notes") as caught:
        check(tokenizer, "17\n\u00e9 8 #")
    assert caught.value.where == "line 1, byte 1"
    documents = tokenizer.encode_documents(["17", "8"])
    with pytest.raises(UserError, match=r"3 bytes of numbers were decoded to 2"):
        require_given_back_bytes(tokenizer, documents, 3, "numbers")
    require_given_back_bytes(tokenizer, documents, 2, "numbers")


def test_a_whole_byte_vocabulary_gives_back_everything() -> None:
    tokenizer = by_bytes()
    assert tokenizer.gives_back_all and changed_by(tokenizer) is None
    check(tokenizer, TEXT, "\x00\x7f \u00e9\u6771 \r\n\t", "")


@pytest.mark.parametrize("kind", KINDS)
def test_trained_tokenizers_give_back_plain_text(kind: str) -> None:
    tokenizer = base(kind)
    assert changed_by(tokenizer) is None
    check(tokenizer, TEXT, "two  spaces ")


class Heard(SilentListener):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_a_few_bytes_are_said_and_scored() -> None:
    tokenizer, heard = base("metaspace"), Heard()  # takes a leading space for the one it adds
    with listening(heard):
        check(tokenizer, " a space first" + "x" * 1000)
    assert "does not restore 1 of the 1,014 bytes of the notes" in heard.lines[0]
    with pytest.raises(UserError, match=r"1 of the 14 bytes"):
        check(tokenizer, " a space first")
    with listening(heard):
        require_given_back_bytes(tokenizer, tokenizer.encode_documents(["x" * 1000]), 1001, "notes")
    assert "1,001 bytes of notes were decoded to 1,000" in heard.lines[1]
