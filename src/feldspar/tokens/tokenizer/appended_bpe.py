"""Train a BPE on target text alone, and append its tokens to the base's vocabulary.

The trained merges do not fit a base that splits the same text differently. So all ways to make a
new token from two others are added as merges, after the old ones. Tokens that are still never
produced are left out.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

from feldspar.tokens.tokenizer.continued_bpe import runs
from feldspar.tokens.tokenizer.growth import Growth, Vocabulary, unreachable
from feldspar.tokens.tokenizer.merge_learning import learn_merges
from feldspar.tokens.tokenizer.spelling import ByteSpelling, Spelling


def trained_pieces(spelling: Spelling, words: Counter[str]) -> Iterator[str]:
    """Yield the tokens of a BPE over the target characters of ``words``, in training order."""
    split = {word: spelling.characters(word) for word in words}
    names = sorted({character for characters in split.values() for character in characters})
    ids = {name: identifier for identifier, name in enumerate(names)}
    kinds = [
        "start" if name == spelling.space else "inside" if spelling.is_target(name) else "elsewhere"
        for name in names
    ]
    sequences: Counter[tuple[int, ...]] = Counter()
    for word, characters in split.items():
        for run in runs([ids[character] for character in characters], kinds.__getitem__):
            sequences[run] += words[word]

    def result(left: int, right: int) -> int | None:
        return len(names) if spelling.fits(names[left] + names[right]) else None

    for left, right, _ in learn_merges(sequences, result):
        names.append(names[left] + names[right])
        yield names[-1]


def append_pieces(
    vocabulary: Vocabulary, spelling: Spelling, candidates: Iterable[str], new_tokens: int
) -> Growth:
    """Add at most ``new_tokens`` of the ``candidates``: those that fit and that the merges produce.

    Single characters that the base lacks come first. A character stays even if the token that needs
    it is never produced. A token that is never produced makes room for the next one.
    """
    rest = iter(candidates)
    characters: dict[str, None] = {}
    kept: list[str] = []
    refused: list[str] = []
    dropped: dict[str, None] = {}
    while True:
        _fill(kept, characters, rest, vocabulary, spelling, new_tokens, refused, dropped)
        pieces = [*characters, *(piece for piece in kept if piece not in characters)]
        growth = Growth(
            tuple(pieces), tuple(_all_splits(pieces, vocabulary)), tuple(dropped), tuple(refused)
        )
        lost = set(unreachable(vocabulary.merging(growth), pieces))
        if not lost:
            return growth
        dropped |= dict.fromkeys(piece for piece in pieces if piece in lost)
        # A piece cannot be made if one of its characters cannot.
        kept = [piece for piece in kept if lost.isdisjoint((piece, *_needed(piece, spelling)))]
        characters = {character: None for character in characters if character not in lost}


def _fill(
    kept: list[str],
    characters: dict[str, None],
    rest: Iterator[str],
    vocabulary: Vocabulary,
    spelling: Spelling,
    new_tokens: int,
    refused: list[str],
    dropped: dict[str, None],
) -> None:
    """Take candidates until there are ``new_tokens``, counting the characters that they need."""
    taken = dict.fromkeys([*characters, *kept])
    while len(taken) < new_tokens and (piece := next(rest, None)) is not None:
        if piece in vocabulary.ids or piece in taken or not spelling.fits(piece):
            refused.append(piece)
            continue
        missing = _missing(piece, vocabulary, spelling)
        needed = missing | {piece: None}
        if dropped.keys().isdisjoint(needed) and len(taken | needed) <= new_tokens:
            kept.append(piece)
            characters |= missing
            taken |= needed


def _needed(piece: str, spelling: Spelling) -> Iterator[str]:
    """Yield the characters of a token, each after the bytes that it is made of."""
    for character in spelling.characters(piece.removeprefix(spelling.space)):
        if isinstance(spelling, ByteSpelling) and (prefix := spelling.prefix(character)):
            yield prefix
        yield character


def _missing(piece: str, vocabulary: Vocabulary, spelling: Spelling) -> dict[str, None]:
    """Return the characters and bytes that ``piece`` needs and the base lacks, in order of use."""
    return {needed: None for needed in _needed(piece, spelling) if needed not in vocabulary.ids}


def _all_splits(pieces: list[str], vocabulary: Vocabulary) -> Iterator[tuple[str, str]]:
    """Yield all ways to make each token from two others, the parts with smaller ids first."""
    ids = vocabulary.ids | {
        piece: identifier for identifier, piece in enumerate(pieces, start=vocabulary.first_new)
    }
    for piece in pieces:
        parts = ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        pairs = [(ids[a], ids[b], (a, b)) for a, b in parts if a in ids and b in ids]
        yield from (pair for _, _, pair in sorted(pairs))
