"""Add new tokens (after the last id) to a vocabulary, with new merges (after the last rank) to that
of a BPE, or with scores to that of a Unigram."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from feldspar.tokens.tokenizer.extension import Extension
from feldspar.tokens.tokenizer.plain_text import UNTYPED
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer


@dataclass(frozen=True)
class Growth:
    """Tokens and merges to add to a vocabulary."""

    pieces: tuple[str, ...] = ()
    """New tokens in the order of their ids."""
    merges: tuple[tuple[str, str], ...] = ()
    """New merges in the order of their ranks."""
    unreachable: tuple[str, ...] = ()
    """Tokens that are left out because no text would produce them."""
    refused: tuple[str, ...] = ()
    """Tokens that are left out because they are not allowed or exist already."""
    scores: tuple[float, ...] = ()
    """Scores of the new tokens of a Unigram; its lowest score for tokens beyond their number."""


class Vocabulary:
    """Tokens and merges of a BPE tokenizer, or tokens and scores of a Unigram."""

    def __init__(self, base: TextTokenizer) -> None:
        self._base = base
        self._parts: dict[str, Any] = json.loads(base.to_json())
        vocab = self._parts["model"]["vocab"]
        self.is_unigram = isinstance(vocab, list)
        self.ids: dict[str, int] = (
            {piece: n for n, (piece, _) in enumerate(vocab)} if self.is_unigram else vocab
        )
        """Token to id, without the tokens that were added beside the model."""
        self.least_score = min(score for _, score in vocab) if self.is_unigram else 0.0
        """Lowest score of a Unigram; the cost of an unknown character follows from it."""
        self.first_new = base.vocab_size
        self.looks_up_words = bool(self._parts["model"].get("ignore_merges"))
        """True if a word that equals a token becomes that token, whatever the merges would do."""

    def grown(self, growth: Growth, extension: Extension) -> TextTokenizer:
        """Return the base with ``growth``; all else is unchanged."""
        tokenizer = Tokenizer.from_str(json.dumps(self._parts | {"model": self._model(growth)}))
        return TextTokenizer(
            tokenizer, self._base.end_of_document, extension, self._base.declaration
        )

    def merging(self, growth: Growth) -> Tokenizer:
        """Return a tokenizer of the merges or scores only: no normaliser, pre-tokenizer, added
        tokens or whole words."""
        alone = dict.fromkeys(("normalizer", "pre_tokenizer", "post_processor"))
        model = {k: v for k, v in self._model(growth).items() if k != "ignore_merges"}
        parts = self._parts | alone | {"added_tokens": [], "model": model}
        return Tokenizer.from_str(json.dumps(parts))

    def _model(self, growth: Growth) -> dict[str, Any]:
        model = self._parts["model"]
        # The library would give an added token the next free id, so its own id is set.
        added = {token["content"]: token["id"] for token in self._parts["added_tokens"]}
        if self.is_unigram:
            return model | {"vocab": [*model["vocab"], *self._scored(growth, added)]}
        new = {piece: self.first_new + n for n, piece in enumerate(growth.pieces)}
        merges = [*model["merges"], *map(list, growth.merges)]
        return model | {"vocab": added | self.ids | new, "merges": merges}

    def _scored(self, growth: Growth, added: dict[str, int]) -> list[tuple[str, float]]:
        """Return the entries of a Unigram after its own: added tokens at their ids, new tokens."""
        names = {identifier: content for content, identifier in added.items()}
        between = [names.get(n, UNTYPED.format(n)) for n in range(len(self.ids), self.first_new)]
        missing = len(growth.pieces) - len(growth.scores)
        scores = [self.least_score] * len(between) + [*growth.scores] + [self.least_score] * missing
        return list(zip([*between, *growth.pieces], scores, strict=True))


def unreachable(merging: Tokenizer, pieces: Sequence[str]) -> list[str]:
    """Return the ``pieces`` that the model does not make from their own characters."""
    return [
        piece
        for piece in pieces
        if [token.value for token in merging.model.tokenize(piece)] != [piece]
    ]
