"""Fill-in-the-middle: text between document ends is cut in three, and its middle put last.

A model trained left to right on such text learns to write what is missing between a beginning and
an end (2207.14255; Crystal, 2411.04156). Here it is done to finished windows: each document's part
of a window is transformed with the probability ``rate``, and the window is then cut or filled to
its length again. Cuts fall between characters, not tokens, because what a user leaves out need not
begin at a token; the three parts are encoded one by one, and decode to the text they were cut from.
What becomes of a part depends on the seed and on the part's place in its source alone.
"""

from dataclasses import dataclass

import numpy as np

from feldspar.core.errors import UserError
from feldspar.core.streams import hash_integers
from feldspar.recipe.sections.phase_data import FillInTheMiddle
from feldspar.tokens.tokenizer.exact_text import exact_tokenizer
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

SPELLINGS = ("<|fim_{}|>", "<fim_{}>")
"""How tokenizers write the four tokens: Crystal's way, and that of its data (and StarCoder)."""
PARTS = ("prefix", "middle", "suffix", "pad")
DRAWS = 4
"""Numbers drawn for each part: whether, which order, two cuts."""
REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class Sentinels:
    """The ids of the tokens that mark the three parts, and of the one that fills a window up."""

    prefix: int
    middle: int
    suffix: int
    pad: int

    @classmethod
    def of(cls, tokenizer: TextTokenizer) -> "Sentinels":
        """Return the tokenizer's own.

        Raises UserError when it lacks one, gives two of them one id, or makes them out of text.
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
                    f"fill_in_the_middle: the tokenizer turns the text {name!r} into that token, so"
                    " that a document could hold it",
                    do="declare it as special in the tokenizer's files",
                )
        return cls(*(ids[name] or 0 for name in wanted))


@dataclass(frozen=True)
class FilledWindow:
    """A window of context length L after the transformation."""

    tokens: np.ndarray
    """(L+1,) i64."""
    label_mask: np.ndarray
    """(L,) bool: False where the next token is padding or is not known."""
    cut_tokens: int
    """Tokens of the transformed text beyond the window's end, lost to this epoch."""


class Infiller:
    """Transforms windows whose documents were encoded by ``tokenizer``; safe in several threads.

    Raises UserError when the tokenizer lacks the special tokens, or does not give text back.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._sentinels = Sentinels.of(tokenizer)
        self._tokenizer = exact_tokenizer(tokenizer)
        self._end = tokenizer.end_of_document_id

    def window(
        self, window: np.ndarray, how: FillInTheMiddle, key: int, position: int
    ) -> FilledWindow:
        """Transform the L+1 tokens of ``window``, the last of which is only a label.

        ``key`` and ``position``, the place of the first token in its source's epoch, decide what is
        drawn. End-of-document tokens stay where they are between the parts.
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
        # A document that goes on after the window goes on after its own last token only: what
        # follows a middle that was cut off is not known.
        if transformed is None:
            filled = np.append(filled, window[-1])
        tokens = np.full(length + 1, self._sentinels.pad, np.int64)
        tokens[: len(filled)] = filled[: length + 1]
        mask = np.ones(length, bool)
        mask[len(filled) - 1 :] = False
        return FilledWindow(tokens, mask, cut)

    def part(self, ids: np.ndarray, how: FillInTheMiddle, draws: list[int]) -> np.ndarray | None:
        """Return one document's part of a window, transformed; None when it stays as it is.

        ``draws`` are four integers below 2^64. A part that begins or ends within a character (or
        with U+FFFD) has no text to cut and stays.
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
        """The ids of the tokens before the suffix and before what comes last."""
        return self._sentinels.suffix, self._sentinels.middle

    def text(self, ids: np.ndarray) -> str:
        """Return the text of a document or a part of it, with the space before its first word."""
        return self._tokenizer.decode(ids)

    def cuts(self, text: str, draws: list[int]) -> tuple[int, int]:
        """Where the middle begins and ends, each uniform over the places between characters."""
        first, second = sorted((draw * (len(text) + 1)) >> 64 for draw in draws[-2:])
        return first, second

    def arrange(self, text: str, first: int, second: int, suffix_first: bool) -> np.ndarray:
        """``text`` with the characters ``first`` to ``second`` - 1 as its middle, as i64 ids.

        PSM: PRE prefix SUF suffix MID middle; with ``suffix_first`` SPM in its second variant:
        PRE SUF suffix MID prefix middle.
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
