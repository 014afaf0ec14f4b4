"""Fill-in-the-middle: cut text in three parts and move the middle to the end.

A model trained left to right on such text learns to fill the gap between a beginning and an end
(2207.14255; Crystal, 2411.04156). A text is transformed with probability ``rate``. Cuts are between
characters, not tokens, because a user's gap need not begin at a token. The three parts are encoded
separately, and decode to the original text.

There are two scopes. ``document`` transforms whole documents before they are packed. ``context``
transforms the parts of documents in a finished window, and then cuts or fills the window to its
length again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from feldspar.core.errors import InternalError, UserError
from feldspar.core.streams import hash_integers
from feldspar.recipe.sections.phase_data import FillInTheMiddle
from feldspar.tokens.tokenizer.exact_text import exact_tokenizer
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

SPELLINGS: tuple[tuple[str, str, str, str | None], ...] = (
    ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    ("<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>"),
    ("<fim-prefix>", "<fim-middle>", "<fim-suffix>", "<fim-pad>"),
    ("\u2581<PRE>", "\u2581<MID>", "\u2581<SUF>", None),
    (
        "<\uff5cfim\u2581begin\uff5c>",
        "<\uff5cfim\u2581end\uff5c>",
        "<\uff5cfim\u2581hole\uff5c>",
        None,
    ),
)
"""Spellings of the tokens before prefix, middle and suffix, and of the padding: those of Crystal,
Qwen2.5-Coder and CodeGemma; StarCoder and Granite; SantaCoder; Code Llama; DeepSeek-Coder."""
DRAWS = 4
"""Random numbers of each part: transform or not, the order, and two cuts."""
REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class Sentinels:
    """Ids of the tokens that mark the three parts, and of the padding token if there is one."""

    prefix: int
    middle: int
    suffix: int
    pad: int | None = None

    @classmethod
    def of(cls, tokenizer: TextTokenizer, pads: bool = False) -> "Sentinels":
        """Return the ids of the tokenizer's own special tokens; ``pads`` asks for a padding token.

        Raises UserError if it lacks one, two have the same id, or text is encoded to one of them.
        """
        known = {
            spelling: [name for name in spelling if name and tokenizer.id_of(name) is not None]
            for spelling in SPELLINGS
        }
        chosen = max(SPELLINGS, key=lambda spelling: len(known[spelling]))
        wanted = [name for name in (chosen if pads else chosen[:3]) if name]
        missing = [name for name in wanted if name not in known[chosen]]
        if missing:
            usable = [spelling for spelling in SPELLINGS if spelling[3] or not pads]
            raise UserError(
                f"fill_in_the_middle: the tokenizer has no token {missing[0]!r}",
                allowed=" or ".join(
                    ", ".join(name for name in (s if pads else s[:3]) if name) for s in usable
                ),
                do=f"add {', '.join(missing)} to tokenizer.special_tokens and build the shards",
            )
        if pads and chosen[3] is None:
            raise UserError(
                "fill_in_the_middle.scope: context needs a token for padding, and a tokenizer "
                f"with {chosen[0]!r} has none",
                do="set scope: document, which needs no padding",
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
                    do=f"add {', '.join(wanted)} to tokenizer.special_tokens and build the shards",
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
    """Transform documents and windows that ``tokenizer`` encoded; safe in several threads.

    Only windows need ``pads``. Raises UserError if the tokenizer lacks the special tokens, or does
    not restore text.
    """

    def __init__(self, tokenizer: TextTokenizer, pads: bool = False) -> None:
        self._sentinels = Sentinels.of(tokenizer, pads)
        self._tokenizer = exact_tokenizer(tokenizer)
        self._end = tokenizer.end_of_document_id

    def window(
        self, window: np.ndarray, how: FillInTheMiddle, key: int, position: int
    ) -> FilledWindow:
        """Transform the L+1 tokens of ``window``; the last one is only a label.

        ``key`` and ``position``, the place of the first token in its source's epoch, decide the
        random numbers. End-of-document tokens stay between the parts.
        """
        pad = self._sentinels.pad
        if pad is None:
            raise InternalError("windows were transformed without a padding token")
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
        tokens = np.full(length + 1, pad, np.int64)
        tokens[: len(filled)] = filled[: length + 1]
        mask = np.ones(length, bool)
        mask[len(filled) - 1 :] = False
        return FilledWindow(tokens, mask, cut)

    def document(self, ids: np.ndarray, how: FillInTheMiddle, draws: list[int]) -> np.ndarray:
        """Return the tokens of a whole document with its end, transformed or unchanged.

        ``draws`` are four integers below 2^64.
        """
        transformed = self.part(ids[:-1], how, draws)
        return ids if transformed is None else np.append(transformed, ids[-1])

    def part(self, ids: np.ndarray, how: FillInTheMiddle, draws: list[int]) -> np.ndarray | None:
        """Return one document, or its part in a window, transformed; None if it stays unchanged.

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
        prompt = self.prompt(prefix.tolist(), suffix.tolist(), suffix_first)
        return np.append(prompt, middle).astype(np.int64)

    def prompt(self, prefix: Sequence[int], suffix: Sequence[int], suffix_first: bool) -> list[int]:
        """Return the ids before a middle: PRE prefix SUF suffix MID; with ``suffix_first`` PRE SUF
        suffix MID prefix."""
        pre, mid, suf = self._sentinels.prefix, self._sentinels.middle, self._sentinels.suffix
        if suffix_first:
            return [pre, suf, *suffix, mid, *prefix]
        return [pre, *prefix, suf, *suffix, mid]
