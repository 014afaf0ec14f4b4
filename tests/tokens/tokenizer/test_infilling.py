"""Fill-in-the-middle of finished windows, against Crystal's definition (2411.04156)."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers

from feldspar.core.errors import UserError
from feldspar.core.streams import hash_integers
from feldspar.recipe.sections.tokens import END_OF_DOCUMENT
from feldspar.tokens.tokenizer.bpe import train_bpe
from feldspar.tokens.tokenizer.exact_text import exact_tokenizer
from feldspar.tokens.tokenizer.infilling import DRAWS, SPELLINGS, Infiller, Sentinels
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from tests.tokens.conftest import FIM, infilling, segments, some_texts
from tests.tokens.conftest import restored as restored_by

TEXTS = some_texts(21, 60)
LAST = 2**64 - 1
"""The largest number that can be drawn."""


def small_tokenizer() -> TextTokenizer:
    return train_bpe(TEXTS, 320, (END_OF_DOCUMENT, *FIM))


TOKENIZER = small_tokenizer()
SENTINELS = Sentinels.of(TOKENIZER, pads=True)
INFILLER = Infiller(TOKENIZER, pads=True)
END = TOKENIZER.end_of_document_id


def ids_of(text: str) -> np.ndarray:
    return TOKENIZER.encode_documents([text])[0].astype(np.int64)


def restored(ids: list[int]) -> str:
    return restored_by(TOKENIZER, SENTINELS, ids)


def test_both_orders_of_abcdef() -> None:
    psm = TOKENIZER.decode(INFILLER.arrange("abcdef", 2, 4, suffix_first=False))
    spm = TOKENIZER.decode(INFILLER.arrange("abcdef", 2, 4, suffix_first=True))
    assert psm == "<|fim_prefix|>ab<|fim_suffix|>ef<|fim_middle|>cd"
    assert spm == "<|fim_prefix|><|fim_suffix|>ef<|fim_middle|>abcd"


def test_every_cut_of_six_characters_can_be_undone() -> None:
    cuts = [(first, second) for first in range(7) for second in range(first, 7)]
    assert len(cuts) == 28
    for text in ("abcdef", "é東\U0001f600 \n京"):
        for first, second in cuts:
            psm = INFILLER.arrange(text, first, second, suffix_first=False).tolist()
            spm = INFILLER.arrange(text, first, second, suffix_first=True).tolist()
            assert restored(psm) == restored(spm) == text
            middle = psm[psm.index(SENTINELS.middle) + 1 :]
            assert TOKENIZER.decode(middle) == text[first:second]


def test_shares_of_the_two_orders_and_of_plain_text() -> None:
    ids = ids_of("a river runs under the old house. " * 12)
    draws = hash_integers(np.arange(10_000 * DRAWS).reshape(-1, DRAWS), 7).tolist()
    parts = [INFILLER.part(ids, infilling(0.9), drawn) for drawn in draws]
    transformed = [part for part in parts if part is not None]
    # An empty prefix (1 in 200) looks like suffix first.
    prefix_first = sum(part[1] != SENTINELS.suffix for part in transformed)
    assert 4500 - 200 <= prefix_first <= 4500 + 200
    assert 4500 - 200 <= len(transformed) - prefix_first <= 4500 + 200
    assert 1000 - 100 <= len(parts) - len(transformed) <= 1000 + 100
    for part in transformed[:100]:
        assert restored(part.tolist()) == TOKENIZER.decode(ids)


@pytest.mark.parametrize("draw", [0, 2**62, LAST])
def test_a_whole_document_keeps_its_text_and_its_end(draw: int) -> None:
    for text in ("x", "\U0001f600", "é<|endoftext|> <|fim_pad|>", *TEXTS[:20]):
        ids = np.append(ids_of(text), END)
        for order in (0, LAST):
            found = INFILLER.document(ids, infilling(0.9), [0, order, draw, 2**63]).tolist()
            assert found[-1] == END and found.count(END) == 1
            assert restored(found[:-1]) == text
        assert INFILLER.document(ids, infilling(0.9), [LAST, 0, draw, 0]).tolist() == ids.tolist()


@pytest.mark.parametrize(("rate", "transformed"), [(0.0, 0), (1.0, 1)])
def test_the_ends_of_the_rate(rate: float, transformed: int) -> None:
    ids = ids_of("light")
    for chance in (0, 1, 2**63, LAST):
        part = INFILLER.part(ids, infilling(rate), [chance, LAST, LAST, 0])
        assert (part is not None) == transformed
    if transformed:
        assert part is not None and part.tolist() == [
            SENTINELS.prefix, SENTINELS.suffix, SENTINELS.middle, *ids,
        ]  # fmt: skip


documents_and_cut = st.tuples(
    st.lists(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=12), min_size=1, max_size=6
    ),
    st.integers(0, 5),
    st.integers(1, 60),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(0, 2**40),
)


@settings(max_examples=200, deadline=None)
@given(documents_and_cut)
def test_windows_keep_their_length_documents_and_labels(
    drawn: tuple[list[str], int, int, float, int],
) -> None:
    texts, offset, length, rate, position = drawn
    stream = np.concatenate([np.append(ids_of(text), END) for text in texts * 9])
    window = stream[offset : offset + length + 1]
    filled = INFILLER.window(window, infilling(rate), key=5, position=position)
    again = INFILLER.window(window, infilling(rate), key=5, position=position)
    assert filled.tokens.shape == window.shape and filled.label_mask.shape == (len(window) - 1,)
    assert np.array_equal(filled.tokens, again.tokens)
    tokens, kept = filled.tokens.tolist(), filled.label_mask.tolist()
    # Padding is never learned, comes last, and only where nothing was cut off.
    assert all(
        not keep for token, keep in zip(tokens[1:], kept, strict=True) if token == SENTINELS.pad
    )
    counted = kept.index(False) if False in kept else len(kept)
    assert not any(kept[counted:])
    assert filled.cut_tokens == 0 or all(kept)
    before, after = segments(window[:-1].tolist(), END), segments(filled.tokens[:-1].tolist(), END)
    if filled.cut_tokens == 0:
        assert len(before) == len(after)
    for one, other in list(zip(before, after, strict=False))[:-1]:
        if other and other[0] == SENTINELS.prefix:
            assert restored(other) == TOKENIZER.decode(one)
        else:
            assert other == one
    if rate == 0:
        assert np.array_equal(filled.tokens, window) and all(kept)


def test_the_last_label_is_the_true_next_token_or_masked() -> None:
    stone, house = ids_of("a stone"), ids_of("the house")
    ended = np.concatenate([stone, [END], house[:1]])
    filled = INFILLER.window(ended, infilling(1.0), 1, 0)
    # Three sentinels more than there is room for: what was pushed out is the next label.
    assert filled.label_mask.all() and filled.cut_tokens >= 3
    unchanged = INFILLER.window(ended, infilling(0.0), 1, 0)
    assert unchanged.tokens[-1] == house[0] and unchanged.label_mask.all()
    # The window ends within its only document, exactly full: nobody knows what comes next.
    whole = INFILLER.arrange(TOKENIZER.decode(stone), *cuts_of(stone, 9), suffix_first=False)
    assert restored(whole.tolist()) == "a stone"


def cuts_of(ids: np.ndarray, seed: int) -> tuple[int, int]:
    low, high = sorted(random.Random(seed).sample(range(len(TOKENIZER.decode(ids)) + 1), 2))
    return low, high


def test_a_part_that_shrinks_leaves_padding_that_is_not_learned() -> None:
    # Single bytes where the tokenizer would write longer tokens: encoding them again is shorter.
    spelt = np.concatenate([ids_of(letter) for letter in "the house under the tree over the house"])
    filled = INFILLER.window(np.append(spelt, spelt[0]), infilling(1.0), 3, 0)
    counted = int(filled.label_mask.sum())
    assert filled.cut_tokens == 0 and 0 < counted < len(spelt) - 1
    assert set(filled.tokens[counted + 1 :]) == {SENTINELS.pad}
    assert SENTINELS.pad not in filled.tokens[: counted + 1]
    # No document end is made up where the window was cut within the document.
    assert END not in filled.tokens
    assert restored(filled.tokens[: counted + 1].tolist()) == TOKENIZER.decode(spelt)


def test_fragments_of_a_character_stay_as_they_are() -> None:
    ids = ids_of("\U0001f600 light")
    assert len(ids_of("\U0001f600")) == 4
    for fragment in (ids[1:], ids[:2]):
        assert INFILLER.part(fragment, infilling(1.0), [0, 0, 0, LAST]) is None
    assert INFILLER.part(ids, infilling(1.0), [0, 0, 0, LAST]) is not None


def test_strings_of_sentinels_in_a_document_stay_text() -> None:
    text = "x<|fim_middle|>y<|endoftext|>"
    ids = ids_of(text)
    part = INFILLER.part(ids, infilling(1.0), [0, LAST, 2**62, 2**63])
    assert part is not None and END not in part
    assert restored(part.tolist()) == text


def test_no_two_places_share_their_draws() -> None:
    ids = np.append(ids_of("the old tree over the new stone"), END)
    window = np.concatenate([*[ids] * 40, ids[:1]])
    parts = segments(INFILLER.window(window, infilling(1.0), 11, 0).tokens.tolist(), END)[:-1]
    assert len({tuple(part) for part in parts}) > 20
    others = segments(INFILLER.window(window, infilling(1.0), 12, 0).tokens.tolist(), END)[:-1]
    assert parts != others
    # What a document becomes hangs on its place, not on the window that it is read in.
    later = INFILLER.window(window[len(ids) :], infilling(1.0), 11, len(ids))
    assert segments(later.tokens.tolist(), END)[0] == parts[1]


def llama_like(texts: list[str]) -> TextTokenizer:
    """A tokenizer of SentencePiece's kind: a space before every text, bytes for rare characters."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    space = "\u2581"
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(space), normalizers.Replace(" ", space)]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(space, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<unk>", "<s>", "</s>", *FIM, *bytes_],
        max_token_length=12,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    parts = json.loads(tokenizer.to_str())
    parts["added_tokens"] = [t for t in parts["added_tokens"] if t["content"] not in bytes_]
    return TextTokenizer(Tokenizer.from_str(json.dumps(parts)), "</s>")


def test_seams_of_a_tokenizer_that_puts_a_space_before_every_text() -> None:
    sources = [
        path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py"))
    ]
    sources = [text for text in sources if len(text) > 1000]
    tokenizer = llama_like([text[:2000] for text in sources])
    infiller, exact = Infiller(tokenizer), exact_tokenizer(tokenizer)
    sentinels = Sentinels.of(tokenizer)
    rng = random.Random(2)
    naive = 0
    for _ in range(300):
        text = rng.choice(sources)[rng.randrange(200) :][:400]
        (ids,) = tokenizer.encode_documents([text])
        cut = rng.randrange(len(text) + 1)
        apart = tokenizer.encode_documents([text[:cut], text[cut:]])
        naive += tokenizer.decode(np.concatenate(apart)) == text
        document = infiller.document(
            np.append(ids, tokenizer.end_of_document_id),
            infilling(1.0, 0.0),
            [0, LAST, rng.getrandbits(64), rng.getrandbits(64)],
        )
        *plain, end = document.tolist()
        assert end == tokenizer.end_of_document_id and plain[0] == sentinels.prefix
        suffix, middle = plain.index(sentinels.suffix), plain.index(sentinels.middle)
        joined = plain[1:suffix] + plain[middle + 1 :] + plain[suffix + 1 : middle]
        assert tokenizer.decode(joined) == text
        assert exact.decode(joined) == " " + text
    assert naive < 15, "the space at the seam would be there"


def test_a_tokenizer_without_the_tokens_is_refused() -> None:
    plain = train_bpe(TEXTS, 300, (END_OF_DOCUMENT,))
    with pytest.raises(UserError, match=r"no token '<\|fim_prefix\|>'") as caught:
        Infiller(plain)
    assert "tokenizer.special_tokens" in (caught.value.do or "")
    three = plain.with_special_tokens(["<fim_prefix>", "<fim_middle>", "<fim_suffix>"])
    assert Sentinels.of(three) == Sentinels(300, 301, 302)
    with pytest.raises(UserError, match=r"no token '<fim_pad>'"):
        Sentinels.of(three, pads=True)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_spellings_of_open_bases(spelling: tuple[str | None, ...]) -> None:
    plain = train_bpe(TEXTS, 300, (END_OF_DOCUMENT,))
    named = [name for name in spelling if name]
    # Each base has them in its own order, and other special tokens between them.
    extended = plain.with_special_tokens(["<other>", *reversed(named)])
    found = Sentinels.of(extended)
    assert [found.prefix, found.middle, found.suffix] == [
        300 + len(named) - place for place in range(3)
    ]
    assert extended.vocab_size == 301 + len(named)
    assert extended.end_of_document_id == plain.end_of_document_id
    if spelling[3] is None:
        with pytest.raises(UserError, match="needs a token for padding") as caught:
            Infiller(extended, pads=True)
        assert "scope: document" in (caught.value.do or "")
    else:
        assert Sentinels.of(extended, pads=True).pad == 301


def test_two_tokens_with_one_id_are_refused() -> None:
    parts = json.loads(TOKENIZER.to_json())
    vocab = parts["model"]["vocab"]
    vocab["<|fim_pad|>"] = vocab["<|fim_suffix|>"]
    parts["added_tokens"] = [t for t in parts["added_tokens"] if "fim" not in t["content"]]
    with pytest.raises(UserError, match="have the same id"):
        Sentinels.of(
            TextTokenizer(Tokenizer.from_str(json.dumps(parts)), END_OF_DOCUMENT), pads=True
        )


def test_a_token_that_text_can_become_is_refused() -> None:
    bare = Tokenizer.from_str(train_bpe(TEXTS, 300, (END_OF_DOCUMENT,)).to_json())
    bare.add_tokens([AddedToken(name, special=False) for name in FIM])
    tokenizer = TextTokenizer(bare, END_OF_DOCUMENT)
    with pytest.raises(UserError, match="a document could contain it"):
        Sentinels.of(tokenizer)
    # The error tells how to make them special; the ids stay.
    assert Sentinels.of(tokenizer.with_special_tokens(FIM)) == Sentinels(300, 301, 302)


def test_a_tokenizer_that_loses_text_is_refused() -> None:
    parts = json.loads(TOKENIZER.to_json()) | {"normalizer": {"type": "Lowercase"}}
    lossy = TextTokenizer(Tokenizer.from_str(json.dumps(parts)), END_OF_DOCUMENT)
    with pytest.raises(UserError, match="does not restore a text"):
        Infiller(lossy)
