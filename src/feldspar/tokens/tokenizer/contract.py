"""Check the contract between an extended tokenizer and its base, on text of both languages.

C1: old ids keep their tokens, and new ids follow without a gap. C2: a text without a target
character keeps its ids. C3: decoding returns the same text as before. C4: new tokens consist of
whole old tokens, so no new boundary appears. C5: the model produces each new token. C6: normaliser,
pre-tokenizer, decoder, control tokens and the model's options do not change.

C4 holds for BPE only: a Unigram places its boundaries anew where a new token is more probable. C3
leaves out texts with characters that a Unigram without bytes does not know.
"""

import json
from collections.abc import Iterable
from typing import Any

from feldspar.core.errors import UserError
from feldspar.tokens.tokenizer.growth import Growth, Vocabulary, unreachable
from feldspar.tokens.tokenizer.scripts import TargetCharacters, code_points
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

SHOWN_TOKENS = 5


def check_contract(
    base: TextTokenizer,
    extended: TextTokenizer,
    target: TargetCharacters,
    probes: Iterable[str],
) -> None:
    """Compare ``extended`` with ``base``: its parts once, and its ids on each text of ``probes``.

    Raises UserError that names the clause and an example, in code points.
    """
    _check_parts(base, extended)
    pieces = decompositions(base, extended)
    unigram = isinstance(json.loads(base.to_json())["model"]["vocab"], list)
    unknown = unknown_id(base)
    for text in probes:
        without = target.pattern.sub("", text)
        for clause, part in (("C2", without), ("C4", text)):
            (old,), (new,) = base.encode_documents([part]), extended.encode_documents([part])
            expected, found = old.tolist(), new.tolist()
            if clause == "C2" and expected != found:
                what = "a text without a target character changes"
                raise _broken("C2", what, base, expected, found)
            whole = [o for n in found for o in _old_ids(n, pieces, base.vocab_size)]
            if whole != expected and not unigram:
                what = "a new token does not consist of whole old tokens"
                raise _broken("C4", what, base, expected, whole)
            if unknown not in expected and base.decode(old) != extended.decode(new):
                raise _broken(
                    "C3", "a decoded text differs from the one before", base, expected, found
                )


def _check_parts(base: TextTokenizer, extended: TextTokenizer) -> None:
    """Check C1, C5 and C6, and that the old merges come first."""
    for identifier in range(base.vocab_size):
        if base.piece(identifier) != extended.piece(identifier):
            raise UserError(
                f"the extended tokenizer breaks C1: the token of old id {identifier} has changed",
                found=ascii(extended.piece(identifier)),
                allowed=ascii(base.piece(identifier)),
            )
    old, new = (json.loads(tokenizer.to_json()) for tokenizer in (base, extended))
    _check_same(old, new, ("post_processor", "added_tokens"))
    check_old_text(base, extended)
    first = base.vocab_size
    pieces = [extended.piece(identifier) for identifier in range(first, extended.vocab_size)]
    if None in pieces:
        gap = first + pieces.index(None)
        raise UserError(f"the extended tokenizer breaks C1: the new id {gap} has no token")
    merging = Vocabulary(extended).merging(Growth())
    if lost := unreachable(merging, [piece for piece in pieces if piece is not None]):
        raise UserError(
            f"the extended tokenizer breaks C5: {len(lost)} new tokens are never produced",
            found=code_points(lost[0]),
        )


def check_old_text(base: TextTokenizer, extended: TextTokenizer) -> None:
    """Check what keeps the ids of old text, whatever tokens were added: normaliser, pre-tokenizer,
    decoder, the model's options, and that the old merges come first.

    Raises UserError that names the clause.
    """
    old, new = (json.loads(tokenizer.to_json()) for tokenizer in (base, extended))
    _check_same(old, new, ("normalizer", "pre_tokenizer", "decoder"))
    if (options := _options(old)) != _options(new):
        raise UserError(
            "the extended tokenizer breaks C6: the model's options differ",
            found=str(_options(new)),
            allowed=str(options),
        )
    if isinstance(old["model"]["vocab"], list):
        _check_scores(old["model"]["vocab"], new["model"]["vocab"])
    merges = old["model"].get("merges", [])
    if new["model"].get("merges", [])[: len(merges)] != merges:
        raise UserError("the extended tokenizer breaks C4: its first merges are not the base's")
    for pair in new["model"].get("merges", [])[len(merges) :]:
        if new["model"]["vocab"]["".join(pair)] < base.vocab_size:
            raise UserError(
                "the extended tokenizer breaks C4: a new merge makes an old token",
                found=" + ".join(map(code_points, pair)),
            )


def _check_same(old: dict[str, Any], new: dict[str, Any], names: Iterable[str]) -> None:
    """Check that parts of a tokenizer have not changed."""
    for name in names:
        if old[name] != new[name]:
            raise UserError(
                f"the extended tokenizer breaks C6: its {name} differs from the base's",
                found=json.dumps(new[name]),
                allowed=json.dumps(old[name]),
            )


def _check_scores(old: list[list[Any]], new: list[list[Any]]) -> None:
    """Check that a Unigram keeps its pieces with their scores, and its lowest score."""
    if new[: len(old)] != old:
        raise UserError("the extended tokenizer breaks C1: an old token has another score")
    least = min(score for _, score in old)
    lower = [piece for piece, score in new[len(old) :] if score < least]
    if lower:
        raise UserError(
            "the extended tokenizer breaks C2: a score below the lowest old one changes the cost "
            "of unknown characters",
            found=code_points(lower[0]),
        )


def unknown_id(tokenizer: TextTokenizer) -> int | None:
    """Return the id of characters that the model does not know; None if it has none."""
    model: dict[str, Any] = json.loads(tokenizer.to_json())["model"]
    name = model.get("unk_token")
    return model.get("unk_id") if name is None else tokenizer.id_of(name)


def _options(parts: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in parts["model"].items() if key not in ("vocab", "merges")}


def _old_ids(identifier: int, pieces: list[list[int]], first_new: int) -> list[int]:
    return [identifier] if identifier < first_new else pieces[identifier - first_new]


def _broken(
    clause: str, what: str, base: TextTokenizer, expected: list[int], found: list[int]
) -> UserError:
    """Return the error, with the old tokens around the first difference."""
    place = next(
        (n for n, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b),
        min(len(expected), len(found)),
    )
    around = base.decode(expected[max(0, place - SHOWN_TOKENS) : place + SHOWN_TOKENS])
    return UserError(
        f"the extended tokenizer breaks {clause}: {what}",
        where=f"old token {place} of a text, at {code_points(around)}",
        found=f"{found[place : place + SHOWN_TOKENS]}",
        allowed=f"{expected[place : place + SHOWN_TOKENS]}",
    )


def decompositions(base: TextTokenizer, extended: TextTokenizer) -> list[list[int]]:
    """Return for each new id, in order, the ids of ``base`` that spell it.

    They come from the base's merges alone, because encoding the token as text would put a space
    before it. The base's ids of a text are the decompositions of its new ids in a row; control
    tokens that were added beside the vocabulary count as text. Raises UserError if ``extended``
    does not keep all ids of ``base``.
    """
    for identifier in range(base.vocab_size):
        old, new = base.piece(identifier), extended.piece(identifier)
        if old != new:
            raise UserError(
                f"the tokenizer does not extend the base: id {identifier} was {old!a} and is "
                f"{new!a}",
                do="give the tokenizer that was extended as base",
            )
    found = []
    for identifier in range(base.vocab_size, extended.vocab_size):
        piece = extended.piece(identifier) or ""
        added = extended.is_added(identifier)
        found.append(base.encode_documents([piece])[0].tolist() if added else base.merged(piece))
    return found
