"""Continue the base's BPE: learn further merges on target text that the base has split.

Each new token can be produced, because the base's merges leave its two parts side by side. No new
merge changes the base's own splits. Idea: arXiv 2512.03989.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from feldspar.tokens.tokenizer.growth import Growth, Vocabulary
from feldspar.tokens.tokenizer.merge_learning import MINIMUM_COUNT, learn_merges
from feldspar.tokens.tokenizer.spelling import Spelling

BATCH_WORDS = 2**14


def continue_merges(
    vocabulary: Vocabulary, spelling: Spelling, words: Counter[str], new_tokens: int
) -> Growth:
    """Return at most ``new_tokens`` new tokens, learned on ``words`` (spelled, with counts).

    Characters that the base has only as bytes come first, frequent ones before rare ones.
    """
    characters = missing_characters(vocabulary, spelling, words)[:new_tokens]
    names = dict(enumerate(characters, start=vocabulary.first_new))
    names |= {identifier: piece for piece, identifier in vocabulary.ids.items()}
    known = set(names.values())
    pieces, merges = list(characters), []

    def result(left: int, right: int) -> int | None:
        piece = names[left] + names[right]
        if piece in known or not spelling.fits(piece):
            return None
        return vocabulary.first_new + len(pieces)

    sequences = tokenised(vocabulary, spelling, words, characters, names)
    learned = learn_merges(sequences, result)
    for left, right, new in islice(learned, new_tokens - len(pieces)):
        names[new] = names[left] + names[right]
        known.add(names[new])
        pieces.append(names[new])
        merges.append((names[left], names[right]))
    return Growth(tuple(pieces), tuple(merges))


def missing_characters(
    vocabulary: Vocabulary, spelling: Spelling, words: Counter[str]
) -> list[str]:
    """Return the target characters of ``words`` that have no token, the most frequent first.

    A byte-level vocabulary lacks none: it merges characters from bytes.
    """
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    missing = [
        character
        for character, count in counts.items()
        if count >= MINIMUM_COUNT
        and character not in vocabulary.ids
        and spelling.is_target(character)
    ]
    return sorted(missing, key=lambda character: (-counts[character], character))


def tokenised(
    vocabulary: Vocabulary,
    spelling: Spelling,
    words: Counter[str],
    characters: Sequence[str],
    names: dict[int, str],
) -> Counter[tuple[int, ...]]:
    """Return the runs of ids in ``words`` that new tokens may be made of, with their counts."""
    merging = vocabulary.merging(Growth(tuple(characters)))
    places = {identifier: spelling.place_of(piece) for identifier, piece in names.items()}
    found: Counter[tuple[int, ...]] = Counter()
    # The base never splits words that it looks up whole.
    inside = [w for w in words if not (vocabulary.looks_up_words and w in vocabulary.ids)]
    for start in range(0, len(inside), BATCH_WORDS):
        batch = inside[start : start + BATCH_WORDS]
        encodings = merging.encode_batch_fast(batch, add_special_tokens=False)
        for word, encoding in zip(batch, encodings, strict=True):
            for run in runs(encoding.ids, places.__getitem__):
                found[run] += words[word]
    return found


def runs(items: Sequence[int], place_of: Callable[[int], str]) -> Iterator[tuple[int, ...]]:
    """Yield runs of two or more neighbours that may be merged (see ``Spelling.place_of``)."""
    run: list[int] = []
    for item in items:
        place = place_of(item)
        if place != "inside":
            if len(run) > 1:
                yield tuple(run)
            run = []
        if place != "elsewhere":
            run.append(item)
    if len(run) > 1:
        yield tuple(run)
