"""Extend a tokenizer with tokens of another language, check its contract, and report.

Method: vocabulary extension of bilingual adaptation (arXiv 2407.12869).
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from feldspar.core.errors import UserError
from feldspar.core.progress import say
from feldspar.recipe.sections.tokens import ExtendWith
from feldspar.tokens.tokenizer.appended_bpe import append_pieces, trained_pieces
from feldspar.tokens.tokenizer.continued_bpe import continue_merges
from feldspar.tokens.tokenizer.contract import check_contract
from feldspar.tokens.tokenizer.extension import Extension
from feldspar.tokens.tokenizer.extension_report import (
    compare_fertility,
    refuse_shared_characters,
)
from feldspar.tokens.tokenizer.growth import Growth, Vocabulary
from feldspar.tokens.tokenizer.round_trip import NEGLIGIBLE
from feldspar.tokens.tokenizer.scored_unigram import SURPLUS, score_pieces
from feldspar.tokens.tokenizer.scripts import TargetCharacters, code_points, dominant_script
from feldspar.tokens.tokenizer.spelling import ByteSpelling, Spelling, spelling_of
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer
from feldspar.tokens.tokenizer.words import Words

PROBE_BYTES = 1_000_000
"""Bytes of text of each source for checking the contract and measuring the report."""
SHARED_WORDS = 0.1
"""Largest share of an old source's words that may contain target characters."""


def target_sources(settings: ExtendWith, names: Sequence[str]) -> tuple[str, ...]:
    """Return the sources of the new language among ``names``.

    Raises UserError for an unknown name, and if no source of the old language is left.
    """
    chosen = (settings.corpus,) if isinstance(settings.corpus, str) else settings.corpus
    if unknown := [name for name in chosen if name not in names]:
        raise UserError(
            f"tokenizer.with.corpus: the documents have no source {unknown[0]!r}",
            allowed=", ".join(names),
        )
    if not chosen or not set(names) - set(chosen):
        raise UserError(
            "tokenizer.with.corpus: give at least one source, and leave one of the old "
            "language out, to check that its tokens stay the same",
            found=f"new: {', '.join(chosen)}; all: {', '.join(names)}",
        )
    return tuple(chosen)


def extend_tokenizer(
    base: TextTokenizer,
    settings: ExtendWith,
    target_texts: Iterable[str],
    old: Mapping[str, Sequence[str]],
    new: Mapping[str, Sequence[str]],
) -> TextTokenizer:
    """Return ``base`` with tokens learned on ``target_texts``; ``extension`` holds the report.

    ``old`` and ``new`` are held-out texts of each source in the old and the new language. Raises
    UserError if the base cannot be extended, no new token is found, the languages share their
    characters, or the result breaks its contract.
    """
    target = target_characters(settings, new)
    spelling = spelling_of(base, target)
    if not settings.allow_resegmentation:
        refuse_shared_characters(target, old, SHARED_WORDS)
    vocabulary = Vocabulary(base)
    counts = Words(base).count(target_texts)
    _require_spelled(counts, vocabulary.ids, spelling)
    words = Counter({word: n for word, n in counts.items() if spelling.has_target(word)})
    growth = _grown(vocabulary, spelling, words, settings)
    if not growth.pieces:
        raise UserError(
            "the target text gives no new token",
            found=f"{len(words):,} different words with a target character ({target.description})",
        )
    if len(growth.pieces) < settings.new_tokens:
        say(
            f"the target text gives only {len(growth.pieces):,} of "
            f"{settings.new_tokens:,} new tokens"
        )
    extension = Extension(
        base.digest,
        base.vocab_size,
        len(growth.pieces),
        settings.method,
        target.description,
    )
    extended = vocabulary.grown(growth, extension)
    texts = {**new, **old}
    check_contract(base, extended, target, itertools.chain.from_iterable(texts.values()))
    sources, unused = compare_fertility(base, extended, target, texts)
    extended.extension = replace(
        extension,
        report={
            "asked_tokens": settings.new_tokens,
            "left_out_unreachable": len(growth.unreachable),
            "unused_new_tokens": unused,
            "sources": {name: each.as_dict() for name, each in sources.items()},
        },
    )
    return extended


def _grown(
    vocabulary: Vocabulary, spelling: Spelling, words: Counter[str], settings: ExtendWith
) -> Growth:
    """Return the new tokens that the method of the settings finds in ``words``."""
    count = settings.new_tokens
    if vocabulary.is_unigram:
        if settings.method == "append":
            candidates: Iterable[str] = trained_pieces(spelling, words)
        else:
            asked = int(SURPLUS * count)
            candidates = continue_merges(vocabulary, spelling, words, asked).pieces
        return score_pieces(vocabulary, spelling, words, candidates, count)
    if settings.method == "append":
        return append_pieces(vocabulary, spelling, trained_pieces(spelling, words), count)
    return continue_merges(vocabulary, spelling, words, count)


def _require_spelled(
    words: Mapping[str, int], vocabulary: Mapping[str, int], spelling: Spelling
) -> None:
    """Raise UserError if the base drops characters of the target text (``words``, spelled).

    For a share below ``NEGLIGIBLE``, such as stray control characters, only a warning is printed.
    """
    used = set[str]().union(*words)
    lost = {each for each in used if not all(b in vocabulary for b in spelling.fallback(each))}
    # Target characters that the base lacks become tokens.
    lost = {each for each in lost - vocabulary.keys() if not spelling.is_target(each)}
    if not lost:
        return
    dropped = sum(n * sum(each in lost for each in word) for word, n in words.items())
    total = sum(n * len(word) for word, n in words.items())
    what = f"the base drops {dropped / total:.2%} of the target text, which it cannot spell"
    shown = ", ".join(code_points(each) for each in sorted(lost)[:5])
    if dropped <= NEGLIGIBLE * total:
        say(f"warning: {what}: {shown}")
        return
    raise UserError(
        what,
        found=shown + (" (as bytes)" if isinstance(spelling, ByteSpelling) else ""),
        do="remove these characters from the text, or extend another base",
    )


def target_characters(settings: ExtendWith, new: Mapping[str, Sequence[str]]) -> TargetCharacters:
    """Return the target characters of the settings; default: the script of most letters in
    ``new``."""
    if settings.characters is not None:
        return TargetCharacters.of_characters(settings.characters)
    script = settings.script or dominant_script(text for part in new.values() for text in part)
    return TargetCharacters.of_scripts((script,) if isinstance(script, str) else script)


def probe_texts(documents: Path, names: Iterable[str]) -> dict[str, list[str]]:
    """Return the first megabyte of each source, from its validation documents if it has some."""
    from feldspar.corpus import store

    found: dict[str, list[str]] = {}
    for name in names:
        for split in ("validation", "train"):
            texts, size = [], 0
            for document in store.documents(documents, split, name):
                if document.text.strip():
                    texts.append(document.text)
                    size += len(document.text.encode())
                if size >= PROBE_BYTES:
                    break
            if texts:
                break
        found[name] = texts
    return found
