"""Continued BPE against its definition: tokenise everything afresh before each merge."""

import itertools
import json
from collections import Counter

import pytest
from tokenizers import Tokenizer

from feldspar.tokens.tokenizer.continued_bpe import continue_merges
from feldspar.tokens.tokenizer.growth import Growth, Vocabulary, unreachable
from feldspar.tokens.tokenizer.merge_learning import MINIMUM_COUNT
from feldspar.tokens.tokenizer.scripts import TargetCharacters
from feldspar.tokens.tokenizer.spelling import Spelling, spelling_of
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from feldspar.tokens.tokenizer.words import Words
from tests.tokens.bases import KINDS, MISSING, base, cipher

TARGET = TargetCharacters.of_scripts(("arabic",))


def words_of(kind: str, documents: int) -> Counter[str]:
    return Words(base(kind)).count(cipher()[:documents])


def brute_force(
    vocabulary: Vocabulary, spelling: Spelling, words: Counter[str], first: Growth, merges: int
) -> Growth:
    """Each merge from a tokenisation of all words by the library with the merges so far."""
    growth = first
    for _ in range(merges):
        merging = vocabulary.merging(growth)
        known = merging.get_vocab()
        counts: Counter[tuple[int, int]] = Counter()
        for word, count in words.items():
            for left, right in itertools.pairwise(merging.encode(word).tokens):
                piece = left + right
                if piece not in known and spelling.fits(piece):
                    counts[known[left], known[right]] += count
        left, right = min(counts, key=lambda pair: (-counts[pair], pair))
        assert counts[left, right] >= MINIMUM_COUNT
        pair = merging.id_to_token(left), merging.id_to_token(right)
        growth = Growth((*growth.pieces, "".join(pair)), (*growth.merges, pair))
    return growth


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_pieces_as_by_tokenising_afresh(kind: str) -> None:
    vocabulary, spelling = Vocabulary(base(kind)), spelling_of(base(kind), TARGET)
    words = words_of(kind, 8)
    found = continue_merges(vocabulary, spelling, words, 20)
    characters = [piece for piece in found.pieces if len(piece) == 1]
    merges = 20 - len(characters)
    first = Growth(tuple(characters))
    assert found == brute_force(vocabulary, spelling, words, first, merges)


@pytest.mark.parametrize("kind", KINDS)
def test_every_piece_is_reached(kind: str) -> None:
    vocabulary, spelling = Vocabulary(base(kind)), spelling_of(base(kind), TARGET)
    growth = continue_merges(vocabulary, spelling, words_of(kind, 600), 600)
    assert len(growth.pieces) == len(set(growth.pieces)) == 600
    assert unreachable(vocabulary.merging(growth), growth.pieces) == []
    assert not set(growth.pieces) & set(vocabulary.ids)


def test_missing_characters_come_first_by_frequency() -> None:
    vocabulary, spelling = Vocabulary(base("llama")), spelling_of(base("llama"), TARGET)
    words = Counter({"▁ثثخ": 3, "▁ذا": 9, "▁؟": 1, "▁q": 50})
    growth = continue_merges(vocabulary, spelling, words, 3)
    assert growth.pieces == ("ذ", "ث", "خ")
    assert set(growth.pieces) == set(MISSING)
    assert growth.merges == ()
    assert continue_merges(vocabulary, spelling, words, 1).pieces == ("ذ",)


def test_no_merge_makes_a_piece_that_is_there_already() -> None:
    # The base knows the word but has no merge that makes it, so its parts stay side by side.
    parts = json.loads(base("llama").to_json())
    added = {"\u0628\u062a": len(parts["model"]["vocab"]) + 9}
    (letters,) = added
    parts["model"]["vocab"] |= {c: len(parts["model"]["vocab"]) + n for n, c in enumerate(letters)}
    parts["model"]["vocab"] |= added
    tokenizer = TextTokenizer(Tokenizer.from_str(json.dumps(parts)), base("llama").end_of_document)
    vocabulary, spelling = Vocabulary(tokenizer), spelling_of(tokenizer, TARGET)
    words = Counter({f"\u2581{first}{letters}": 20 for first in "\u062c\u062d\u062f"})
    growth = continue_merges(vocabulary, spelling, words, 12)
    assert growth.merges and not set(growth.pieces) & set(vocabulary.ids)
    assert len(set(growth.pieces)) == len(growth.pieces)
