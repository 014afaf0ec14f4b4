"""Turn tokens into text as they come, without ever showing a part of a character."""

from collections.abc import Sequence

from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer

REPLACEMENT = "\ufffd"
"""The character that stands for bytes which are no character, or not yet."""
CONTEXT_TOKENS = 8
"""Tokens before a new one that are decoded with it, because decoders join neighbours."""
CHARACTER_BYTES = 4
"""The most bytes of a character, each of which may be a token."""


class TextStream:
    """The text of the tokens that follow ``before``. Special tokens have no text.

    All pieces together are what these tokens add to the text of ``before``.
    """

    def __init__(self, tokenizer: TextTokenizer, before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._text = ""
        for length in range(CONTEXT_TOKENS, CONTEXT_TOKENS + CHARACTER_BYTES):
            self._ids = list(before)[-length:]
            self._text = self._decoded(self._ids)
            if not self._text.startswith(REPLACEMENT):
                break  # else the context begins inside a character
        self._known = len(self._ids)

    def add(self, token: int) -> str:
        """Return the text that is certain with this token; it may be empty."""
        self._ids.append(token)
        text = self._decoded(self._ids)
        return "" if text.endswith(REPLACEMENT) else self._new_part(text)

    def end(self) -> str:
        """Return the rest: U+FFFD for the bytes of a character that was not completed."""
        return self._new_part(self._decoded(self._ids))

    def _new_part(self, text: str) -> str:
        if not text.startswith(self._text):  # byte fallback judges a run of bytes as a whole
            self._ids, self._text = self._ids[self._known :], ""
            text = self._decoded(self._ids)
        piece = text[len(self._text) :]
        self._text, self._known = text, len(self._ids)
        if self._known > 2 * CONTEXT_TOKENS:
            self._forget()
        return piece

    def _forget(self) -> None:
        """Drop old tokens, so that a long text is not decoded over and over again."""
        kept = self._ids[-CONTEXT_TOKENS:]
        text = self._decoded(kept)
        # Some decoders remove a space at the beginning. Text must stand there, so that it is not
        # the space of the next token.
        if text and self._text.endswith(text):
            self._ids, self._text, self._known = kept, text, len(kept)

    def _decoded(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, special_tokens=False)
