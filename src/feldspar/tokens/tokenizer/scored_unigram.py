"""Choose and score the new tokens of a Unigram.

A Unigram splits a word into the pieces whose scores (log probabilities) have the largest sum. A
text without a target character meets no new token. Its splits stay the same as long as no new score
is below the lowest old one, because the cost of an unknown character follows from the lowest score.
Scores of new tokens are estimated on the target text, as SentencePiece's training does: split it by
the scores so far, and take the logarithms of the shares.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from math import log

from feldspar.tokens.tokenizer.continued_bpe import BATCH_WORDS, missing_characters
from feldspar.tokens.tokenizer.growth import Growth, Vocabulary, unreachable
from feldspar.tokens.tokenizer.spelling import Spelling

ROUNDS = 3
"""Number of times that the target text is split and the scores are estimated anew."""
SURPLUS = 1.25
"""Candidates for each token that is asked for; the least used ones are left out."""
FIRST_SCORE = -1.0
"""Score of all candidates before the first round: better than that of nearly every old token."""
UNSEEN = 0.5
"""Count of a token that no word is split into."""


def score_pieces(
    vocabulary: Vocabulary,
    spelling: Spelling,
    words: Counter[str],
    candidates: Iterable[str],
    new_tokens: int,
) -> Growth:
    """Return at most ``new_tokens`` of the ``candidates``, with scores that make each reachable.

    Characters of ``words`` (spelled, with counts) that the base lacks come first.
    """
    characters = missing_characters(vocabulary, spelling, words)[:new_tokens]
    known = {*vocabulary.ids, *characters}
    fitting = (piece for piece in dict.fromkeys(candidates) if piece not in known)
    asked = int(SURPLUS * new_tokens)
    pieces = [*characters, *islice(filter(spelling.fits, fitting), asked)]
    scores, counts = _estimated(vocabulary, words, pieces)
    used = sorted(pieces[len(characters) :], key=lambda piece: -counts[piece])
    kept = {*characters, *used[: new_tokens - len(characters)]}
    pieces = [piece for piece in pieces if piece in kept]
    dropped: list[str] = []
    while True:
        scores, _ = _estimated(vocabulary, words, pieces)
        growth = Growth(tuple(pieces), (), tuple(dropped), scores=tuple(scores))
        lost = set(unreachable(vocabulary.merging(growth), pieces))
        if not lost:
            return growth
        dropped += sorted(lost)
        pieces = [piece for piece in pieces if piece not in lost]


def _estimated(
    vocabulary: Vocabulary, words: Counter[str], pieces: Sequence[str]
) -> tuple[list[float], Counter[str]]:
    """Return the scores of ``pieces``, and how often the words are split into each."""
    scores = [FIRST_SCORE] * len(pieces)
    counts: Counter[str] = Counter()
    for _ in range(ROUNDS):
        counts = _counted(vocabulary, words, Growth(tuple(pieces), scores=tuple(scores)))
        total = max(counts.total(), 1)
        shares = (max(counts[piece], UNSEEN) / total for piece in pieces)
        scores = [max(log(min(share, 1.0)), vocabulary.least_score) for share in shares]
    return scores, counts


def _counted(vocabulary: Vocabulary, words: Counter[str], growth: Growth) -> Counter[str]:
    merging = vocabulary.merging(growth)
    spelled = list(words)
    counts: Counter[str] = Counter()
    for start in range(0, len(spelled), BATCH_WORDS):
        batch = spelled[start : start + BATCH_WORDS]
        encodings = merging.encode_batch(batch, add_special_tokens=False)
        for word, encoding in zip(batch, encodings, strict=True):
            for piece in encoding.tokens:
                counts[piece] += words[word]
    return counts
