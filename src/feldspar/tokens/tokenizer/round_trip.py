"""Find text that a tokenizer does not restore when it decodes what it encoded.

A normaliser may change a text (capitals, accents, spaces), and a vocabulary without all bytes drops
characters that it lacks. Then a figure measured on the tokens belongs to another text.
"""

import string
from collections.abc import Sequence
from itertools import zip_longest

import numpy as np

from feldspar.core.errors import UserError
from feldspar.core.progress import say
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

NEWLINE = "\n"
NEGLIGIBLE = 1e-3
"""Share of a text's bytes that may differ: it changes bits per byte less than a seed does."""
SHOWN = 24
"""Number of characters of a changed place that a message shows."""
PLAIN = f"{string.ascii_letters}  {string.digits}{string.punctuation}\n\n\tZ z"
"""Text with characters that nearly every corpus contains."""


def require_given_back(
    tokenizer: TextTokenizer, texts: Sequence[str], documents: Sequence[np.ndarray], name: str
) -> list[int]:
    """Return the number of bytes of each text that its tokens do not decode to.

    ``documents`` are the tokens, and ``name`` names the texts in messages. Raises UserError if the
    bytes are more than ``NEGLIGIBLE`` of all texts together, and prints a warning if they are fewer
    (such as the space before a text that SentencePiece removes); both say what differs.
    """
    counts, place = [], ("", "")
    for text, document in zip(texts, documents, strict=True):
        found = tokenizer.decode(document)
        if found != text and not any(counts):
            place = _first_change(text, found)
        counts.append(0 if found == text else _changed_bytes(text, found))
    changed, total = sum(counts), sum(len(text.encode()) for text in texts)
    if not changed:
        return counts
    what = f"the tokenizer does not restore {changed:,} of the {total:,} bytes of {name}"
    where, difference = place
    if changed <= NEGLIGIBLE * total:
        say(f"warning: {what} ({where}: {difference})")
        return counts
    raise UserError(
        f"{what}; bits per byte would be those of another text",
        where=where,
        found=difference,
        do="evaluate on text that the tokenizer restores (lower case for a tokenizer "
        "that lowers it)",
    )


def require_given_back_bytes(
    tokenizer: TextTokenizer, documents: Sequence[np.ndarray], text_bytes: int, name: str
) -> None:
    """Raise UserError if the tokens of a source do not decode to as many bytes as it had.

    For a share below ``NEGLIGIBLE`` only a warning is printed.
    """
    if tokenizer.gives_back_all:
        return
    found = sum(len(tokenizer.decode(document).encode()) for document in documents)
    if found != text_bytes:
        what = f"{text_bytes:,} bytes of {name} were decoded to {found:,}"
        if abs(found - text_bytes) <= NEGLIGIBLE * text_bytes:
            say(f"warning: {what}")
            return
        raise UserError(
            f"{what}; bits per byte would be those of another text",
            do="train with a tokenizer that restores every text, such as a byte-level BPE",
        )


def changed_by(tokenizer: TextTokenizer) -> str | None:
    """Return how the tokenizer changes ASCII letters, digits, signs and spaces; None: not at all.

    From tokens alone nobody can tell what the text was before.
    """
    if tokenizer.gives_back_all:
        return None
    (document,) = tokenizer.encode_documents([PLAIN])
    found = tokenizer.decode(document)
    if found == PLAIN:
        return None
    return _first_change(PLAIN, found)[1]


def _first_change(text: str, found: str) -> tuple[str, str]:
    """Return the first place where ``found`` differs from ``text``, and the difference."""
    begin = _common(text, found)
    where = f"line {text.count(NEWLINE, 0, begin) + 1}, byte {len(text[:begin].encode()):,}"
    return where, f"{text[begin : begin + SHOWN]!r} became {found[begin : begin + SHOWN]!r}"


def _changed_bytes(text: str, found: str) -> int:
    """Count the bytes of ``text`` that ``found`` lacks, line by line."""
    pairs = zip_longest(text.split(NEWLINE), found.split(NEWLINE), fillvalue="")
    return max(1, sum(_changed_in_line(line, other) for line, other in pairs if line != other))


def _changed_in_line(line: str, other: str) -> int:
    """Count the bytes that differ; position by position if the lengths are equal."""
    if len(line) == len(other):
        return sum(len(a.encode()) for a, b in zip(line, other, strict=True) if a != b)
    before = _common(line, other)
    behind = _common(line[before:][::-1], other[before:][::-1])
    return len(line[before : len(line) - behind].encode())


def _common(one: str, other: str) -> int:
    """Count the characters at which both texts begin equally."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))
