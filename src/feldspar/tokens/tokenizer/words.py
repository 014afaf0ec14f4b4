"""Split texts into words, as a tokenizer's model receives them, and count the words."""

import re
from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer

from feldspar.core.errors import UserError
from feldspar.tokens.tokenizer.bpe import byte_characters
from feldspar.tokens.tokenizer.pretokens import pattern_for
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer, is_plain_byte_bpe

_CHUNK = re.compile("\u2581*[^\u2581]+|\u2581+")


class Words:
    """Split texts as ``base`` does: with its normaliser, pre-tokenizer and spelling.

    If the model receives whole texts (SentencePiece), words are split before the marks of spaces.
    """

    def __init__(self, base: TextTokenizer) -> None:
        parts = Tokenizer.from_str(base.to_json())
        self._normalizer = parts.normalizer
        self._pre_tokenizer = parts.pre_tokenizer
        self._written = byte_characters() if is_plain_byte_bpe(parts) else None

    def __call__(self, text: str) -> list[str]:
        """Return the words of ``text``. Raises UserError, with the byte offset, for lone
        surrogates.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            place = len(text[: error.start].encode())
            raise UserError(
                f"the text is not valid UTF-8: lone surrogate at byte {place:,}"
            ) from error
        if self._normalizer is not None:
            text = self._normalizer.normalize_str(text)
        if self._pre_tokenizer is None:
            return _CHUNK.findall(text)
        found = []
        for pretoken, _ in self._pre_tokenizer.pre_tokenize_str(text):
            found += _CHUNK.findall(pretoken)
        return found

    def count(self, texts: Iterable[str]) -> Counter[str]:
        """Return how often each word occurs in ``texts``."""
        counts: Counter[str] = Counter()
        plain: Counter[str] = Counter()
        for text in texts:
            pattern = None if self._written is None else pattern_for(text)
            if pattern is None:
                counts.update(self(text))
            else:  # the same words, several times faster, before they are spelled
                plain.update(pattern.findall(text))
        for word, count in plain.items():
            counts["".join(map((self._written or []).__getitem__, word.encode()))] += count
        return counts
