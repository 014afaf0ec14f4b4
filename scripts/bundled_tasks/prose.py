"""Items of ``last_word``: which of four words of a passage ends it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.bundled_tasks.sources import read_bands, read_novels, shuffled

CONTEXT_WORDS = 50
MOST_WORDS = 110
ITEMS_PER_NOVEL = 60
ITEMS_PER_WORD = 2
CHOICES = 4
SENTENCE_END = re.compile(r"""(?<!Mr\.)(?<!Mrs\.)(?<!Dr\.)(?<!St\.)(?<=[.!?])(?:(?<=")|(?!"))\s+""")


def last_word_items(sources: Path) -> list[dict[str, Any]]:
    """Return passages of 50 to 110 words without their last word, and four words to choose from.

    The last word ends a sentence of narration and stands in an earlier sentence of the passage. The
    wrong words stand in earlier sentences too. None of the four stands earlier in the last
    sentence; all have at least four letters and are no frequent words (SCOWL's size 10) of fewer
    than six letters; all begin with a capital letter or none does. A novel gives at most 60 items,
    a word is at most twice the right one.
    """
    bands = read_bands(sources / "scowl")
    items = []
    for title, lines in read_novels(sources / "r-cran-janeaustenr").items():
        used: dict[str, int] = {}
        for item in shuffled(_passages(title, lines, bands), "last_word"):
            word = item["choices"][item["answer"]].lower()
            if sum(used.values()) < ITEMS_PER_NOVEL and used.get(word, 0) < ITEMS_PER_WORD:
                used[word] = used.get(word, 0) + 1
                items.append(item)
    return items


def _passages(title: str, lines: list[str], bands: dict[str, int]) -> Iterator[dict[str, Any]]:
    for chapter in re.split(r"\n(?=CHAPTER|Chapter)", "\n".join(lines).replace("_", "")):
        _, _, text = chapter.partition("\n")
        sentences = SENTENCE_END.split(" ".join(text.split()))
        for end in range(1, len(sentences)):
            before: list[str] = []
            while len(" ".join(before).split()) < CONTEXT_WORDS and len(before) < end:
                before.insert(0, sentences[end - 1 - len(before)])
            match = re.fullmatch(r"([^\"]+\s)([A-Za-z]{4,})\.", sentences[end])
            context = " ".join([*before, match[1].strip()]) if match else ""
            if match is None or not CONTEXT_WORDS <= len(context.split()) <= MOST_WORDS:
                continue
            own = re.findall(r"[A-Za-z]+", match[1].lower())
            shown = [
                word
                for word in dict.fromkeys(re.findall(r"[A-Za-z]{4,}", " ".join(before)))
                if word.lower() not in own
                and word[0].isupper() == match[2][0].isupper()
                and (bands.get(word.lower(), 99) > 10 or len(word) >= 6)
            ]
            others = [word for word in shuffled(shown, context) if word != match[2]]
            if match[2] in shown and len(others) >= CHOICES - 1:
                choices = shuffled([match[2], *others[: CHOICES - 1]], "choices")
                answer = choices.index(match[2])
                yield {"context": context, "choices": choices, "answer": answer, "novel": title}
