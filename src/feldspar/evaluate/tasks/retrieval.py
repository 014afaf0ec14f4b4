"""Make retrieval questions from a seed, with filler up to a length in tokens.

There are three tasks in our own words, similar to the passkey test and the lines of LongEval: a key
hidden in filler, one of many hexadecimal pairs, one of many numbered lines. Each prompt ends where
the answer begins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from feldspar.core.errors import UserError
from feldspar.core.streams import numpy_stream
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

DEPTHS = tuple(step / 10 for step in range(11))
"""Position of the answer in the context: 0 at the beginning, 1 directly before the question."""
WRONG = 9
"""Number of wrong answers beside the true one; chance is right once in ten."""
FILLER = (
    "The path went on along the wall of the garden. ",
    "Nobody had opened the shutters since the winter. ",
    "A cart came down the hill and stopped at the well. ",
    "The bread was still warm when they sat down. ",
    "Rain had been falling on the roofs all morning. ",
    "She folded the letter and laid it on the shelf. ",
    "Two dogs slept in the shade behind the mill. ",
    "The river was low, and the boats lay in the mud. ",
)
ADJECTIVES = (
    "amber bitter broad calm clear cold cool curved damp dark deep dim dry dull early empty even "
    "faint fast fine firm flat fresh gentle giant golden grand grey hollow large late light little "
    "lone loose loud low mild narrow neat new noble odd old open pale plain proud quick quiet rare "
    "rough round royal sharp short silver slow small smooth soft sour steady stiff"
)
NOUNS = (
    "anchor apple arrow barrel basket beacon bell bench bottle bridge brook candle carpet castle "
    "chair cherry cliff cloud coin copper cottage cradle crane crown drum eagle engine falcon "
    "feather fence ferry field flute forest fountain garden gate glove hammer harbour hill island "
    "kettle ladder lake lantern meadow mirror needle orchard owl paddle pebble pepper pillar "
    "plough quarry ribbon saddle sparrow stable table thimble"
)


@dataclass(frozen=True)
class Question:
    """Tokens of a prompt, the separator before it, and the possible answers."""

    text: str
    tokens: tuple[int, ...]
    answer: str
    wrong: tuple[str, ...]
    depth: float


def questions(
    task: str, tokenizer: TextTokenizer, length_tokens: int, count: int, seed: int
) -> list[Question]:
    """Return ``count`` questions of ``passkey``, ``key_value`` or ``lines``, over all depths in
    turn.

    A prompt has at most ``length_tokens`` tokens with its separator, and as many sentences, pairs
    or lines as fit. Raises UserError for a length that is too short for any prompt, with the
    shortest possible length.
    """
    made = []
    for number in range(count):
        rng = numpy_stream(seed, "evaluate.retrieval", task, number)
        made.append(TASKS[task](tokenizer, length_tokens, DEPTHS[number % len(DEPTHS)], rng))
    return made


def passkey(
    tokenizer: TextTokenizer, length_tokens: int, depth: float, rng: np.random.Generator
) -> Question:
    """Return a question for a code of five digits that is given once between sentences of filler.

    The context has no other numbers, so wrong answers are drawn in the same way as the code.
    """
    code, *wrong = (str(number) for number in rng.choice(90_000, WRONG + 1, replace=False) + 10_000)
    first = int(rng.integers(len(FILLER)))

    def text(sentences: int) -> str:
        filler = [FILLER[(first + place) % len(FILLER)] for place in range(sentences)]
        filler.insert(round(depth * sentences), f"The access code is {code}, keep it in mind. ")
        return "".join(filler) + "Someone asked for the code again. The access code is"

    count = _most("passkey", tokenizer, length_tokens, 0, text, length_tokens)
    return _question(tokenizer, text(count), code, wrong, depth, " ")


def key_value(
    tokenizer: TextTokenizer, length_tokens: int, depth: float, rng: np.random.Generator
) -> Question:
    """Return a question with a mapping of hexadecimal keys to values, then one of the keys
    again."""
    most = max(WRONG + 1, length_tokens)
    numbers = [f"{number:06x}" for number in _distinct(rng, 16**6, 2 * most)]
    keys, values = numbers[:most], numbers[most:]

    def place(pairs: int) -> int:
        return round(depth * (pairs - 1))

    def text(pairs: int) -> str:
        body = ", ".join(f'"{keys[n]}": "{values[n]}"' for n in range(pairs))
        return f'{{{body}}}\n"{keys[place(pairs)]}": "'

    return _listed("key_value", tokenizer, length_tokens, text, values, place, rng, depth, "")


def lines(
    tokenizer: TextTokenizer, length_tokens: int, depth: float, rng: np.random.Generator
) -> Question:
    """Return a question with lines of two words and a number up to 50,000, then the words of one
    line."""
    pairs = [f"{first} {second}" for first in ADJECTIVES.split() for second in NOUNS.split()]
    names = [pairs[n] for n in rng.permutation(len(pairs))]
    values = [str(number) for number in rng.choice(50_000, len(names), replace=False) + 1]

    def place(count: int) -> int:
        return round(depth * (count - 1))

    def text(count: int) -> str:
        body = "".join(f"The {names[n]} holds {values[n]}.\n" for n in range(count))
        return f"{body}Which number was it? The {names[place(count)]} holds"

    return _listed("lines", tokenizer, length_tokens, text, values, place, rng, depth, " ")


TASKS: dict[str, Callable[[TextTokenizer, int, float, np.random.Generator], Question]] = {
    "passkey": passkey,
    "key_value": key_value,
    "lines": lines,
}


def _distinct(rng: np.random.Generator, below: int, count: int) -> list[int]:
    """Return distinct numbers in the order drawn."""
    found: dict[int, None] = {}
    while len(found) < count:
        found |= dict.fromkeys(rng.integers(below, size=count).tolist())
    return list(found)[:count]


def _listed(
    task: str,
    tokenizer: TextTokenizer,
    length_tokens: int,
    text: Callable[[int], str],
    values: Sequence[str],
    place: Callable[[int], int],
    rng: np.random.Generator,
    depth: float,
    before: str,
) -> Question:
    """Return a question whose wrong answers are other values in the same list."""
    count = _most(task, tokenizer, length_tokens, WRONG + 1, text, len(values))
    asked = place(count)
    others = [n for n in range(count) if n != asked]
    wrong = [values[n] for n in rng.choice(others, WRONG, replace=False)]
    return _question(tokenizer, text(count), values[asked], wrong, depth, before)


def _question(
    tokenizer: TextTokenizer,
    text: str,
    answer: str,
    wrong: Sequence[str],
    depth: float,
    before: str,
) -> Question:
    tokens = (tokenizer.before_id, *tokenize(tokenizer, text))
    return Question(text, tokens, before + answer, tuple(before + item for item in wrong), depth)


def tokenize(tokenizer: TextTokenizer, text: str) -> list[int]:
    """Return the tokens of a text, without separators."""
    return tokenizer.encode_documents([text])[0].tolist()


def _most(
    task: str,
    tokenizer: TextTokenizer,
    length_tokens: int,
    fewest: int,
    text: Callable[[int], str],
    limit: int,
) -> int:
    """Return the largest number of parts, at most ``limit``, with which the prompt fits."""

    def size(parts: int) -> int:
        return 1 + len(tokenize(tokenizer, text(parts)))

    if size(fewest) > length_tokens:
        raise UserError(
            f"a question of {task} has at least {size(fewest)} tokens",
            found=f"a length of {length_tokens}",
            do="leave the length or the measure out of evaluation.length_sweep",
        )
    low, high = fewest, fewest + 1
    while high <= limit and size(high) <= length_tokens:
        low, high = high, 2 * high
    high = min(high, limit + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) <= length_tokens else (low, middle)
    if low == limit:
        raise UserError(f"{task} has only {limit} parts to fill {length_tokens} tokens with")
    return low
