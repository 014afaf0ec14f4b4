"""Appended pieces: the specification's worked example, and its clauses on trained bases."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from feldspar.tokens.tokenizer.appended_bpe import append_pieces, trained_pieces
from feldspar.tokens.tokenizer.contract import check_contract, decompositions
from feldspar.tokens.tokenizer.extension import Extension
from feldspar.tokens.tokenizer.growth import Growth, Vocabulary, unreachable
from feldspar.tokens.tokenizer.scripts import TargetCharacters
from feldspar.tokens.tokenizer.spelling import spelling_of
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from feldspar.tokens.tokenizer.words import Words
from tests.tokens.bases import KINDS, base, cipher, english

TARGET = TargetCharacters.of_scripts(("arabic",))
PIECES = ["لم", "الم", "▁الم", "سم"]
RECORD = Extension("", 272, 5, "append", "arabic")


@pytest.fixture(scope="module")
def mini() -> TextTokenizer:
    """272 pieces: controls, bytes, ten characters, four merges."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [*"▁ablow", "ا", "ل", "م", "lo", "low", "▁low", "ال"]
    merges = [("l", "o"), ("lo", "w"), ("▁", "low"), ("ا", "ل")]
    vocab = {piece: identifier for identifier, piece in enumerate(pieces)}
    tokenizer = Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens([AddedToken("</s>", special=True, normalized=False)])
    return TextTokenizer(tokenizer, "</s>")


def appended(mini: TextTokenizer, pieces: list[str], new_tokens: int = 5) -> Growth:
    return append_pieces(Vocabulary(mini), spelling_of(mini, TARGET), pieces, new_tokens)


def test_the_worked_example(mini: TextTokenizer) -> None:
    growth = appended(mini, PIECES)
    assert growth.pieces == ("س", *PIECES)
    extended = Vocabulary(mini).grown(growth, RECORD)
    assert [extended.piece(n) for n in range(272)] == [mini.piece(n) for n in range(272)]
    assert [extended.piece(n) for n in range(272, 277)] == ["س", *PIECES]
    encoded = [ids.tolist() for ids in extended.encode_documents(["low الم سم", "lowالم", "low"])]
    assert encoded == [[270, 275, 259, 276], [270, 274], [270]]
    check_contract(mini, extended, TARGET, ["low الم سم", "lowالم", "low", "a ب قلم?"])
    assert decompositions(mini, extended) == [
        [3 + 0xD8, 3 + 0xB3],
        [266, 267],
        [271, 267],
        [259, 271, 267],
        [3 + 0xD8, 3 + 0xB3, 267],
    ]


def test_the_trained_merges_alone_leave_pieces_out_of_reach(mini: TextTokenizer) -> None:
    trained = (("ل", "م"), ("ا", "لم"), ("▁", "الم"), ("س", "م"))
    growth = Growth(("س", *PIECES), trained)
    lost = unreachable(Vocabulary(mini).merging(growth), growth.pieces)
    assert lost == ["الم", "▁الم"]


def test_pieces_that_may_not_be_added_are_left_out(mini: TextTokenizer) -> None:
    given = ["low", "لم", "لم", "ال", "<0xD8>", "lم", "</s>", "سم"]
    growth = appended(mini, given)
    assert growth.pieces == ("س", "لم", "سم")
    assert growth.refused == ("low", "لم", "ال", "<0xD8>", "lم", "</s>")


def test_no_new_merge_makes_an_old_piece(mini: TextTokenizer) -> None:
    growth = appended(mini, ["▁ا", "▁ال", "لم", "▁الم"])
    assert {"".join(pair) for pair in growth.merges} == set(growth.pieces)


def test_a_piece_out_of_reach_makes_room_for_the_next(mini: TextTokenizer) -> None:
    # The old merge takes the alef and the lam of the first piece; nothing bridges the rest.
    growth = appended(mini, ["ابالم", "لم", "مل"], 3)
    assert growth.unreachable == ("ابالم",)
    assert growth.pieces == ("ب", "لم", "مل")


def test_a_character_stays_when_its_only_piece_is_out_of_reach(mini: TextTokenizer) -> None:
    growth = appended(mini, ["بالم", "لم"])
    assert growth.unreachable == ("بالم",)
    assert growth.pieces == ("ب", "لم")
    extended = Vocabulary(mini).grown(growth, RECORD)
    check_contract(mini, extended, TARGET, ["لم ب low", "بالم"])


def test_a_full_vocabulary_takes_no_piece_whose_character_finds_no_room(
    mini: TextTokenizer,
) -> None:
    assert appended(mini, ["سم", "لم"], 1).pieces == ("لم",)


@pytest.mark.parametrize("kind", KINDS)
def test_trained_and_appended(kind: str) -> None:
    tokenizer = base(kind)
    vocabulary, spelling = Vocabulary(tokenizer), spelling_of(tokenizer, TARGET)
    words = Words(tokenizer).count(cipher())
    growth = append_pieces(vocabulary, spelling, trained_pieces(spelling, words), 300)
    assert len(set(growth.pieces)) == len(growth.pieces) == 300
    extended = vocabulary.grown(growth, RECORD)
    check_contract(tokenizer, extended, TARGET, [*cipher()[:60], *english()[:60]])
    old, new = (sum(map(len, t.encode_documents(cipher()))) for t in (tokenizer, extended))
    assert new < 0.6 * old
