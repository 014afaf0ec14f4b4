"""Text that is streamed is the text of all tokens, in whole characters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models

from feldspar.tokens.tokenizer.bpe import train_bpe
from feldspar.tokens.tokenizer.text_stream import TextStream
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from tests.made_text import documents

BYTES = train_bpe(documents(30, 400), 300, ("<end>", "<turn>"))
TEXTS = st.text(st.sampled_from("ab \u00e9\u0436\u4e2d\U0001f600\ufffd\n"), max_size=40)


def sentencepiece_like() -> TextTokenizer:
    """Return a tokenizer with marks of spaces and bytes for all other characters."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["\u2581", "a", "b", "\u2581a", "\u2581b"]
    merges = [("\u2581", "a"), ("\u2581", "b")]
    model = models.BPE(
        {piece: number for number, piece in enumerate(pieces)},
        merges,
        unk_token="<unk>",
        byte_fallback=True,
        fuse_unk=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in pieces[:3]])
    return TextTokenizer(tokenizer, "</s>")


FALLBACK = sentencepiece_like()


def streamed(tokenizer: TextTokenizer, before: list[int], ids: list[int]) -> list[str]:
    stream = TextStream(tokenizer, before)
    return [*(stream.add(token) for token in ids), stream.end()]


@given(TEXTS, TEXTS)
def test_pieces_join_to_the_text_and_divide_no_character(before: str, text: str) -> None:
    ids = BYTES.encode(text)
    pieces = streamed(BYTES, BYTES.encode(before), ids)
    assert "".join(pieces) == text
    held_back = len(ids) > len(text.encode())
    assert not held_back


@given(st.lists(st.integers(0, BYTES.vocab_size - 1), max_size=60), st.integers(0, 60))
def test_any_tokens_give_the_text_of_them_all(ids: list[int], place: int) -> None:
    whole = BYTES.decode(ids, special_tokens=False)
    begun = BYTES.decode(ids[:place], special_tokens=False)
    pieces = streamed(BYTES, ids[:place], ids[place:])
    if whole.startswith(begun):
        assert begun + "".join(pieces) == whole
    assert all(not piece.endswith("\ufffd") for piece in pieces[:-1])


@given(st.text(st.sampled_from("ab \u00e9\u4e2d\U0001f600"), max_size=60), st.integers(0, 60))
def test_bytes_that_fall_back_and_marks_of_spaces(text: str, place: int) -> None:
    ids = FALLBACK.encode(text.replace(" ", "\u2581"))
    whole = FALLBACK.decode(ids, special_tokens=False)
    begun = FALLBACK.decode(ids[:place], special_tokens=False)
    if "\ufffd" not in begun and place:
        pieces = streamed(FALLBACK, ids[:place], ids[place:])
        assert begun + "".join(pieces) == whole
    alone = streamed(FALLBACK, [], ids)
    assert "".join(alone) == whole and not any("\ufffd" in piece for piece in alone)


def test_a_character_appears_with_its_last_byte() -> None:
    ids = BYTES.encode("\U0001f600")
    assert len(ids) == 4
    assert streamed(BYTES, [], ids) == ["", "", "", "\U0001f600", ""]
    assert streamed(BYTES, [], ids[:3])[-1] == "\ufffd", "as when all tokens are decoded"


@pytest.mark.parametrize("special", ["<end>", "<turn>"])
def test_special_tokens_have_no_text(special: str) -> None:
    identifier = BYTES.id_of(special)
    assert identifier is not None
    assert streamed(BYTES, [], [identifier, *BYTES.encode("a"), identifier]) == ["", "a", "", ""]


def test_a_run_of_bytes_that_is_no_text_does_not_stop_the_stream() -> None:
    first, wrong = FALLBACK.encode("\u4e2d"), FALLBACK.id_of("<0xFF>")
    assert wrong is not None
    pieces = streamed(FALLBACK, [], [*first, wrong, *FALLBACK.encode("a")])
    assert "".join(pieces) == "\u4e2d\ufffda"
