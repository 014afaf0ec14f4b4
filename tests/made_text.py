"""Text that a seed makes: the same on every machine, and shaped like a language.

Words are built of syllables and follow Zipf's law, sentences have commas, numbers and marks, and
paragraphs have a few sentences. Nothing depends on what is installed.
"""

import random
from bisect import bisect
from functools import cache
from itertools import accumulate

ONSETS = (*"bcdfghjklmnprstvw", "", "st", "tr", "ch", "sh", "pl", "gr", "th", "qu", "z", "x")
VOWELS = (*"aeiou", "ai", "ea", "ou", "y")
ENDS = ("", "", "", "", "", "n", "r", "s", "t", "l", "nd", "st", "ng", "ck")
ENDINGS = (*".....", ".", ".", "?", "!", ":")


class Language:
    """A vocabulary of ``size`` words with Zipf's frequencies, the frequent ones short."""

    def __init__(self, seed: int, size: int) -> None:
        self._random = random.Random(seed)
        found: dict[str, None] = {}
        while len(found) < size:
            found[self._word(1 + bisect((40, 600, 2500), len(found)))] = None
        self._words = list(found)
        self._weights = list(accumulate(1 / (rank + 2.7) for rank in range(size)))

    def _word(self, most_syllables: int) -> str:
        pick = self._random.choice
        count = self._random.randint(max(1, most_syllables - 1), most_syllables + 1)
        return "".join(pick(ONSETS) + pick(VOWELS) + pick(ENDS) for _ in range(count))

    def sentence(self) -> str:
        """Between 4 and 24 words."""
        draw = self._random
        words = draw.choices(self._words, cum_weights=self._weights, k=draw.randint(4, 24))
        words[0] = words[0].capitalize()
        if len(words) > 9:
            words[draw.randrange(2, 8)] += ","
        if draw.random() < 0.2:
            words.insert(3, str(draw.randrange(10 ** draw.randint(1, 4))))
        return " ".join(words) + draw.choice(ENDINGS)

    def text(self, characters: int) -> str:
        """Paragraphs of ``characters`` in all, cut where they are reached."""
        parts, length = [], 0
        while length < characters:
            part = self.sentence() + ("\n\n" if self._random.random() < 0.2 else " ")
            parts.append(part)
            length += len(part)
        return "".join(parts)[:characters]


def documents(count: int, shortest: int, longest: int = 6000, seed: int = 0) -> list[str]:
    """Make ``count`` texts of one language, most of them near the ``shortest`` length."""
    language, lengths = Language(seed, 6000), random.Random(seed)
    return [
        language.text(min(longest, int(shortest * lengths.paretovariate(2)))) for _ in range(count)
    ]


def document_of_its_own(seed: int, characters: int) -> str:
    """Make a text with a vocabulary of its own: two seeds share next to no 13 characters."""
    return Language(seed, 120).text(characters)


@cache
def paragraphs(count: int, seed: int = 0) -> tuple[str, ...]:
    """Make ``count`` paragraphs of 80 to 900 characters, in one line each."""
    language, lengths = Language(seed, 3000), random.Random(seed)
    return tuple(" ".join(language.text(lengths.randint(80, 900)).split()) for _ in range(count))


def edited(text: str, generator: random.Random, share: float) -> str:
    """Copy a text with that share of its words replaced, and with other case and spaces."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return "  ".join(
        "".join(generator.choices(letters, k=9)) if generator.random() < share else word
        for word in text.upper().split()
    )
