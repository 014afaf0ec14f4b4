"""No document can contain a special token, on any kind of tokenizer."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from tests.tokens.bases import ALL_KINDS, base, cipher, english


def special_ids(tokenizer: TextTokenizer) -> set[int]:
    added = Tokenizer.from_str(tokenizer.to_json()).get_added_tokens_decoder()
    return {token for token, added in added.items() if added.special}


@pytest.mark.parametrize("kind", ALL_KINDS)
@given(
    text=st.lists(
        st.sampled_from(["<s>", "</s>", "<unk>", " ", "a", "x</", "s>", "\n", "<", "ا", "7"]),
        max_size=9,
    ).map("".join)
)
@settings(max_examples=40, deadline=None)
def test_special_tokens_in_a_text_are_text(kind: str, text: str) -> None:
    tokenizer = base(kind)
    special = special_ids(tokenizer)
    assert {"<s>", "</s>"} <= {tokenizer.piece(token) for token in special}
    ids = tokenizer.encode(text)
    unknown = tokenizer.id_of("<unk>")
    assert special.isdisjoint(set(ids) - {unknown})
    if unknown not in ids:
        squeezed = "".join(tokenizer.decode(ids).split())
        assert squeezed == "".join(text.split())


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_ids_of_other_text_are_the_librarys(kind: str) -> None:
    tokenizer = base(kind)
    plain = Tokenizer.from_str(tokenizer.to_json())
    for text in (*english()[:20], *cipher()[:20], "12 345  x", "日本", "\ufdd0 5 \ufdd0"):
        assert tokenizer.encode(text) == plain.encode(text, add_special_tokens=False).ids


def test_whole_words_that_are_looked_up() -> None:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {piece: n for n, piece in enumerate([*letters, "END", "EN", "think"])}
    merges = [("E", "N"), ("EN", "D")]
    for options in ({"ignore_merges": True, "merges": merges[:1]}, {"merges": merges}):
        tokenizer = Tokenizer(models.BPE(vocab=vocab, **options))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.add_tokens([AddedToken("think", normalized=False)])
        tokenizer.add_tokens([AddedToken("more", normalized=False)])
        found = TextTokenizer(tokenizer, "END")
        pieces = [found.piece(token) for token in found.encode("END ENDthink more")]
        assert pieces == ["EN", "D", "Ġ", "EN", "D", "think", "Ġ", "more"]
        assert found.id_of("more") == len(vocab)


def test_added_tokens_beyond_a_unigram_keep_their_ids() -> None:
    parts = json.loads(base("unigram").to_json())
    tokenizer = Tokenizer.from_str(json.dumps(parts))
    tokenizer.add_special_tokens(["<extra_0>"])
    tokenizer.add_tokens(["QQ"])
    tokenizer.add_special_tokens(["<extra_1>"])
    found = TextTokenizer(tokenizer, "</s>")
    size = len(parts["model"]["vocab"])
    assert found.encode("QQ")[-1] == size + 1
    assert not {size, size + 2} & set(found.encode("<extra_0> QQ<extra_1>"))
