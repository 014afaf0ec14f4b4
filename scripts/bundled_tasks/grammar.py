"""Items of ``grammar_pairs``: a real sentence, and the same one with one word made wrong."""

import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from scripts.bundled_tasks.sources import first_senses, read_synsets, shuffled

EDITS: dict[str, dict[str, str]] = {
    "verb number": {
        "is": "are",
        "are": "is",
        "was": "were",
        "were": "was",
        "has": "have",
        "does": "do",
    },
    "article": {"a": "an", "an": "a"},
    "pronoun case": {"he": "him", "she": "her", "they": "them", "him": "he", "them": "they"},
    "noun number": {"this": "these", "these": "this", "those": "that", "many": "much"},
    "word order": {"the": "", "a": "", "to": ""},
}
"""Edits by what they break: each word, and the one that takes its place.

The empty word means that the word changes places with the next one.
"""
ITEMS_PER_EDIT = 80
UNSURE = r"\b(if|though|wish|lest|you|family|team|class|couple|group|staff|none|pair|number)\b"
"""Words that may allow either number of a verb; sentences with one of them are left out."""


def grammar_items(sources: Path) -> list[dict[str, Any]]:
    """Return pairs of sentences; ``choices`` holds the real one at ``answer``.

    The sentences are WordNet's examples of six to sixteen words, with a capital letter and a full
    stop. Each edit changes a word that the sentence holds once, the next word of an edit in turn.
    """
    sentences = sorted(set(_sentences(sources)))
    nouns = set(first_senses(sources / "wordnet-base", "noun"))
    items = []
    for edit, swaps in EDITS.items():
        pairs = {
            word: iter(
                [
                    (sentence, wrong)
                    for sentence in shuffled(sentences, f"grammar_pairs {word} {edit}")
                    if (wrong := _broken(sentence, word, other, nouns)) is not None
                ][:ITEMS_PER_EDIT]
            )
            for word, other in swaps.items()
        }
        turns = [pair for turn in zip_longest(*pairs.values()) for pair in turn if pair]
        for sentence, wrong in turns[:ITEMS_PER_EDIT]:
            choices = shuffled([sentence, wrong], "choices")
            answer = choices.index(sentence)
            items.append({"choices": choices, "answer": answer, "edit": edit})
    return items


def _broken(sentence: str, word: str, other: str, nouns: set[str]) -> str | None:
    """Return the sentence with its one ``word`` made wrong; None where the edit does not fit."""
    words = sentence.split()
    places = [n for n, each in enumerate(words[:-1]) if each.lower() == word]
    if len(places) != 1 or re.search(UNSURE, sentence.lower()):
        return None
    place = places[0]
    following = words[place + 1].strip(".,")
    if word in ("a", "an") and (following.startswith(("h", "u", "eu", "o")) or not other):
        return None
    if word == "this" and (following not in nouns or following.endswith("s")):
        return None
    if word in ("these", "those", "many") and not following.endswith("s"):
        return None
    if not other:
        words[place : place + 2] = [words[place + 1], words[place]]
    else:
        words[place] = other
    text = " ".join(words)
    return text[0].upper() + text[1:]


def _sentences(sources: Path) -> Iterator[str]:
    for part in ("noun", "verb", "adj", "adv"):
        for synset in read_synsets(sources / "wordnet-base", part).values():
            for example in synset.examples:
                text = " ".join(example.split()).strip(" .")
                plain = re.fullmatch(r"[A-Za-z][A-Za-z ,']+", text)
                if plain and 6 <= len(text.split()) <= 16:
                    yield text[0].upper() + text[1:] + "."
