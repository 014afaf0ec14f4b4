"""Items of ``word_meaning`` and ``kind_of``: four choices from WordNet."""

import re
from pathlib import Path
from typing import Any

from scripts.bundled_tasks.sources import Synset, first_senses, read_bands, read_synsets, shuffled

PARTS = {"noun": 200, "verb": 100, "adj": 100}
"""Parts of speech, and the number of items of each in ``word_meaning``."""
KINDS = 400
CHOICES = 4


def word_meaning_items(sources: Path) -> list[dict[str, Any]]:
    """Return a definition and four words, one of which it defines, for each item.

    The definition is that of the word's most frequent meaning and holds no form of it. The words
    are of one part of speech and one size of SCOWL, so of similar frequency, and share no synset.
    """
    bands = read_bands(sources / "scowl")
    items = []
    for part, wanted in PARTS.items():
        synsets = read_synsets(sources / "wordnet-base", part)
        senses = first_senses(sources / "wordnet-base", part)
        known = {
            word: synsets[offset]
            for word, offset in senses.items()
            if bands.get(word) in (20, 35) and word.isalpha() and len(word) >= 4
        }
        usable = [word for word, synset in known.items() if _defines(word, synset)]
        for word in shuffled(usable, f"word_meaning {part}")[:wanted]:
            others = [
                other
                for other in shuffled(known, f"word_meaning {word}")
                if bands[other] == bands[word]
                and not set(known[other].words) & set(known[word].words)
                and known[other].topic != known[word].topic
            ]
            choices, answer = _placed(word, others[: CHOICES - 1])
            definition = known[word].definition
            items.append(
                {"definition": definition, "part": part, "choices": choices, "answer": answer}
            )
    return items


def kind_of_items(sources: Path) -> list[dict[str, Any]]:
    """Return a noun and four nouns, one of which names a kind of things that it belongs to.

    The right one is WordNet's direct hypernym of the noun's most frequent meaning. The wrong ones
    are hypernyms of other nouns, from other files of WordNet's lexicographers, and of the same size
    of SCOWL.
    """
    bands = read_bands(sources / "scowl")
    synsets = read_synsets(sources / "wordnet-base", "noun")
    senses = first_senses(sources / "wordnet-base", "noun")
    pairs: dict[str, tuple[str, str]] = {}
    for word, offset in senses.items():
        above = [synsets[each] for each in synsets[offset].hypernyms if each in synsets]
        if bands.get(word) not in (20, 35, 40, 50) or len(above) != 1 or len(word) < 4:
            continue
        kind = next((each for each in above[0].words if bands.get(each, 99) <= 35), None)
        if kind is None or senses.get(kind) != above[0].offset:
            continue
        if kind[:4] != word[:4] and kind not in word and synsets[offset].topic in CONCRETE:
            pairs[word] = (kind, above[0].topic)
    items = []
    for word in shuffled(pairs, "kind_of"):
        kind, topic = pairs[word]
        others = {
            other: None
            for other, other_topic in shuffled(pairs.values(), f"kind_of {word}")
            if other_topic != topic and bands[other] == bands[kind]
        }
        if len(others) >= CHOICES - 1:
            choices, answer = _placed(kind, list(others)[: CHOICES - 1])
            items.append({"word": word, "choices": choices, "answer": answer})
        if len(items) == KINDS:
            break
    return items


CONCRETE = {"05", "06", "08", "13", "17", "18", "20", "27"}
"""WordNet's files of animals, artifacts, body parts, food, places, persons, plants, substances."""


def _defines(word: str, synset: Synset) -> bool:
    """Tell whether a definition is of use for a question: long enough, without the word's stem."""
    stem = re.escape(word[: max(4, len(word) - 3)])
    long_enough = 4 <= len(synset.definition.split()) <= 20
    return long_enough and not re.search(rf"\b{stem}", synset.definition)


def _placed(right: str, wrong: list[str]) -> tuple[list[str], int]:
    """Return the choices in an order that their text decides, and the place of the right one."""
    choices = shuffled([right, *wrong], "choices")
    return choices, choices.index(right)
