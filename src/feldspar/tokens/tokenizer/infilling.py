"""Fill-in-the-middle: cut text in three parts and move the middle to the end.

A model trained left to right on such text learns to fill the gap between a beginning and an end
(2207.14255; Crystal, 2411.04156). Here finished windows are transformed: each document's part of a
window with probability ``rate``. The window is then cut or filled to its length again. Cuts are
between characters, not tokens, because a user's gap need not begin at a token. The three parts are
encoded separately, and decode to the original text. The result for a part depends only on the seed
and on the part's place in its source.
"""

from dataclasses import dataclass

import numpy as np

from feldspar.core.errors import UserError
from feldspar.core.streams import hash_integers
from feldspar.recipe.sections.phase_data import FillInTheMiddle
from feldspar.tokens.tokenizer.exact_text import exact_tokenizer
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

SPELLINGS = ("<|fim_{}|>", "<fim_{}>")
"""Spellings of the four special tokens: Crystal's, and those of its data (and StarCoder)."""
PARTS = ("prefix", "middle", "suffix", "pad")
DRAWS = 4
"""Random numbers of each part: transform or not, the order, and two cuts."""
REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class Sentinels:
    """Ids of the tokens that mark the three parts, and of the padding token."""

    prefix: int
    middle: int
    suffix: int
    pad: int

    @classmethod
    def of(cls, tokenizer: TextTokenizer) -> "Sentinels":
        """Return the ids of the tokenizer's own special tokens.

        Raises UserError if it lacks one, two have the same id, or text is encoded to one of them.
        """
        names = [[spelling.format(part) for part in PARTS] for spelling in SPELLINGS]
        known = [[name for name in spelt if tokenizer.id_of(name) is not None] for spelt in names]
        chosen = max(range(len(SPELLINGS)), key=lambda index: len(known[index]))
        wanted = names[chosen]
        missing = [name for name in wanted if name not in known[chosen]]
        if missing:
            raise UserError(
                f"fill_in_the_middle: the tokenizer has no token {missing[0]!r}",
                allowed=" or ".join(", ".join(spelt) for spelt in names),
                do=f"add {', '.join(missing)} to tokenizer.special_tokens and build the shards",
            )
        ids = {name: tokenizer.id_of(name) for name in [*wanted, tokenizer.end_of_document]}
        if len(set(ids.values())) < len(ids):
            raise UserError(
                "fill_in_the_middle: two of the tokenizer's special tokens have the same id",
                found=", ".join(f"{name} {number}" for name, number in ids.items()),
            )
        for name, encoded in zip(wanted, tokenizer.encode_documents(wanted), strict=True):
            if ids[name] in encoded:
                raise UserError(
                    f"fill_in_the_middle: the tokenizer encodes the text {name!r} to that "
                    "token, so a document could contain it",
                    do="declare it as a special token in the tokenizer's files",
                )
        return cls(*(ids[name] or 0 for name in wanted))


@dataclass(frozen=True)
class FilledWindow:
    """A window of context length L after the transformation."""

    tokens: np.ndarray
    """(L+1,) i64."""
    label_mask: np.ndarray
    """(L,) bool: False where the next token is padding or unknown."""
    cut_tokens: int
    """Tokens of the transformed text beyond the window's end; they are lost for this epoch."""


class Infiller:
    """Transform windows whose documents ``tokenizer`` encoded; safe in several threads.

    Raises UserError if the tokenizer lacks the special tokens, or does not restore text.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._sentinels = Sentinels.of(tokenizer)
        self._tokenizer = exact_tokenizer(tokenizer)
        self._end = tokenizer.end_of_document_id

    def window(
        self, window: np.ndarray, how: FillInTheMiddle, key: int, position: int
    ) -> FilledWindow:
        """Transform the L+1 tokens of ``window``; the last one is only a label.

        ``key`` and ``position``, the place of the first token in its source's epoch, decide the
        random numbers. End-of-document tokens stay between the parts.
        """
        length = len(window) - 1
        inputs = window[:-1]
        ends = np.flatnonzero(inputs == self._end)
        starts = np.concatenate([[0], ends + 1])
        stops = np.append(ends, length)
        draws = hash_integers((position + starts)[:, None] * DRAWS + np.arange(DRAWS), key)
        pieces: list[np.ndarray] = []
        transformed = None
        for start, stop, drawn in zip(starts, stops, draws.tolist(), strict=True):
            transformed = self.part(inputs[start:stop], how, drawn)
            pieces.append(inputs[start:stop] if transformed is None else transformed)
            pieces.append(inputs[stop : stop + 1])
        filled = np.concatenate(pieces)
        cut = max(0, len(filled) - length)
        # A document continues after its own last token. If its middle was cut off, the token
        # after the cut is unknown.
        if transformed is None:
            filled = np.append(filled, window[-1])
        tokens = np.full(length + 1, self._sentinels.pad, np.int64)
        tokens[: len(filled)] = filled[: length + 1]
        mask = np.ones(length, bool)
        mask[len(filled) - 1 :] = False
        return FilledWindow(tokens, mask, cut)

    def part(self, ids: np.ndarray, how: FillInTheMiddle, draws: list[int]) -> np.ndarray | None:
        """Return the transformed part of one document in a window; None if it stays unchanged.

        ``draws`` are four integers below 2^64. A part that begins or ends within a character (or
        with U+FFFD) cannot be cut and stays unchanged.
        """
        chance, order = draws[:2]
        if not len(ids) or chance >= how.rate * 2**64:
            return None
        text = self.text(ids)
        if text.startswith(REPLACEMENT) or text.endswith(REPLACEMENT):
            return None
        return self.arrange(text, *self.cuts(text, draws), order < how.spm * 2**64)

    @property
    def suffix_and_middle(self) -> tuple[int, int]:
        """Ids of the tokens before the suffix and before the part that comes last."""
        return self._sentinels.suffix, self._sentinels.middle

    def text(self, ids: np.ndarray) -> str:
        """Return the text of a document or a part of it, with the space before its first word."""
        return self._tokenizer.decode(ids)

    def cuts(self, text: str, draws: list[int]) -> tuple[int, int]:
        """Return the beginning and end of the middle, each uniform over the places between
        characters."""
        first, second = sorted((draw * (len(text) + 1)) >> 64 for draw in draws[-2:])
        return first, second

    def arrange(self, text: str, first: int, second: int, suffix_first: bool) -> np.ndarray:
        """Return the ids (i64) of ``text`` with characters ``first`` to ``second`` - 1 as its
        middle.

        PSM: PRE prefix SUF suffix MID middle. With ``suffix_first`` SPM in its second variant: PRE
        SUF suffix MID prefix middle.
        """
        parts = [text[:first], text[first:second], text[second:]]
        prefix, middle, suffix = self._tokenizer.encode_documents(parts)
        pre, mid, suf = (
            [number]
            for number in (self._sentinels.prefix, self._sentinels.middle, self._sentinels.suffix)
        )
        pieces = (
            (pre, suf, suffix, mid, prefix, middle)
            if suffix_first
            else (pre, prefix, suf, suffix, mid, middle)
        )
        return np.concatenate(pieces).astype(np.int64)
