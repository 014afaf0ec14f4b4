"""What an extended tokenizer promises, on any text; and that each broken promise is named."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from feldspar.core.errors import UserError
from feldspar.recipe.sections.tokens import ExtendWith
from feldspar.tokens.tokenizer.contract import check_contract, decompositions
from feldspar.tokens.tokenizer.extend import extend_tokenizer
from feldspar.tokens.tokenizer.scripts import TargetCharacters
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from tests.tokens.bases import ARABIC, KINDS, UNIGRAMS, base, cipher, english

TARGET = TargetCharacters.of_scripts(("arabic",))
METHODS = ("continued", "append")


@cache
def extended(kind: str, method: str) -> TextTokenizer:
    options = ExtendWith.model_validate({"corpus": "new", "new_tokens": 300, "method": method})
    old, new = {"old": english()[:50]}, {"new": cipher()[:50]}
    return extend_tokenizer(base(kind), options, cipher(), old, new)


WORDS = st.sampled_from([word for text in (*english()[:9], *cipher()[:9]) for word in text.split()])
SCRAPS = st.text(
    st.one_of(st.sampled_from(ARABIC + " ▁aeth0؟،\u064b\n"), st.characters(codec="utf-8")),
    max_size=12,
)
MIXED = st.lists(st.one_of(WORDS, SCRAPS), max_size=12).flatmap(
    lambda parts: st.sampled_from(["", " ", "  "]).map(lambda space: space.join(parts))
)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(text=MIXED)
def test_any_mixed_text(kind: str, method: str, text: str) -> None:
    old, new = base(kind), extended(kind, method)
    before, after = (tokenizer.encode_documents([text])[0].tolist() for tokenizer in (old, new))
    assert new.decode(after) == old.decode(before)
    pieces = dict(enumerate(decompositions(old, new), start=old.vocab_size))
    assert [o for n in after for o in pieces.get(n, [n])] == before
    without = "".join(c for c in text if c not in TARGET)
    first, second = (t.encode_documents([without])[0].tolist() for t in (old, new))
    assert first == second


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", UNIGRAMS)
@settings(max_examples=20, deadline=None)
@given(text=MIXED)
def test_any_mixed_text_on_a_unigram(kind: str, method: str, text: str) -> None:
    old, new = base(kind), extended(kind, method)
    before, after = (tokenizer.encode(text) for tokenizer in (old, new))
    unknown = old.id_of("<unk>")
    if unknown not in before:
        assert new.decode(after) == old.decode(before)
    without = "".join(c for c in text if c not in TARGET)
    assert old.encode(without) == new.encode(without)
    for token in after:
        piece = new.piece(token) or ""
        assert token < old.vocab_size or any(character in TARGET for character in piece)


@pytest.mark.parametrize("method", METHODS)
def test_characters_that_a_unigram_lacked_are_spelled(method: str) -> None:
    old, new = base("unigram"), extended("unigram", method)
    unknown = old.id_of("<unk>")
    assert sum(unknown in old.encode(text) for text in cipher()[:30]) > 25
    for text in cipher()[:30]:
        assert new.decode(new.encode(text)) == text


@pytest.mark.parametrize("kind", UNIGRAMS)
def test_transformers_reads_an_extended_unigram(kind: str, tmp_path: Path) -> None:
    new = extended(kind, "continued")
    new.save(tmp_path)
    assert TextTokenizer.load(tmp_path).digest == new.digest
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in (*english()[:9], *cipher()[:9]):
        assert theirs(text, add_special_tokens=False)["input_ids"] == new.encode(text)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [*KINDS, "t5"])
def test_the_report(kind: str, method: str) -> None:
    found = extended(kind, method)
    assert found.extension is not None
    assert found.extension.base_digest == base(kind).digest
    assert found.extension.base_vocab_size == base(kind).vocab_size
    assert found.vocab_size == base(kind).vocab_size + 300
    sources = found.extension.report["sources"]
    assert sources["old"]["identity_rate"] == 1 and sources["old"]["target_documents"] == 0
    assert sources["old"]["before"] == sources["old"]["after"]
    before, after = sources["new"]["before"], sources["new"]["after"]
    assert after["tokens_per_word"] < 0.6 * before["tokens_per_word"]
    text = cipher()[:50]
    tokens = sum(map(len, found.encode_documents(text)))
    words = sum(len(t.split()) for t in text)
    assert after["tokens_per_word"] == pytest.approx(tokens / words)
    assert after["bytes_per_token"] == pytest.approx(sum(len(t.encode()) for t in text) / tokens)
    assert after["characters_per_token"] == pytest.approx(sum(map(len, text)) / tokens)
    used = {int(n) for ids in found.encode_documents([*text, *english()[:50]]) for n in ids}
    unused = set(range(base(kind).vocab_size, found.vocab_size)) - used
    assert found.extension.report["unused_new_tokens"] == len(unused)


def altered(kind: str, change: Any) -> TextTokenizer:
    """The extended tokenizer after ``change`` of its parts."""
    parts = json.loads(extended(kind, "continued").to_json())
    change(parts)
    return TextTokenizer(Tokenizer.from_str(json.dumps(parts)), "</s>")


def swap_ids(parts: dict[str, Any]) -> None:
    vocab = parts["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]


def leave_a_gap(parts: dict[str, Any]) -> None:
    vocab = parts["model"]["vocab"]
    vocab[max(vocab, key=vocab.get)] += 1


def add(piece: str, left: str, right: str, place: int | None = None) -> Any:
    def change(parts: dict[str, Any]) -> None:
        vocab, merges = parts["model"]["vocab"], parts["model"]["merges"]
        vocab[piece] = max(vocab.values()) + 1
        merges.insert(len(merges) if place is None else place, [left, right])

    return change


def without_a_merge(parts: dict[str, Any]) -> None:
    vocab = parts["model"]["vocab"]
    vocab["رظر"] = max(vocab.values()) + 1


def old_result(parts: dict[str, Any]) -> None:
    vocab, merges = parts["model"]["vocab"], parts["model"]["merges"]
    splits = ([p[:n], p[n:]] for p in vocab if p.isalpha() for n in range(1, len(p)))
    merges.append(next(s for s in splits if set(s) <= vocab.keys() and s not in merges))


def score_again(parts: dict[str, Any]) -> None:
    parts["model"]["vocab"][50][1] += 0.5


def score_too_low(parts: dict[str, Any]) -> None:
    parts["model"]["vocab"][-1][1] = -1000.0


def normalise(parts: dict[str, Any]) -> None:
    parts["normalizer"] = {"type": "NFKC"}


def options(parts: dict[str, Any]) -> None:
    parts["model"]["fuse_unk"] = False


BROKEN = [
    ("C1: the token of old id", swap_ids),
    (r"C1: the new id \d+ has no token", leave_a_gap),
    ("C2: a text without a target character changes", add("zq", "z", "q")),
    ("C4: its first merges are not", add("رظ", "ر", "ظ", place=0)),
    ("C5: 1 new tokens are never produced", without_a_merge),
    ("C4: a new merge makes an old token", old_result),
    ("C6: its normalizer differs", normalise),
    ("C6: the model's options differ", options),
]


@pytest.mark.parametrize(
    ("message", "change"),
    [("C1: an old token has another score", score_again), ("C2: a score below", score_too_low)],
)
def test_a_broken_clause_of_a_unigram_is_named(message: str, change: Any) -> None:
    with pytest.raises(UserError, match=message):
        check_contract(base("unigram"), altered("unigram", change), TARGET, ["a"])


@pytest.mark.parametrize(("message", "change"), BROKEN)
def test_a_broken_clause_is_named(message: str, change: Any) -> None:
    with pytest.raises(UserError, match=message):
        check_contract(base("metaspace"), altered("metaspace", change), TARGET, ["zzq buzz zzq"])
