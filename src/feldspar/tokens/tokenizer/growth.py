"""A vocabulary and its growth: new pieces after the last id, new merges after the last rank."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from feldspar.tokens.tokenizer.extension import Extension
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer


@dataclass(frozen=True)
class Growth:
    """What is added to a vocabulary."""

    pieces: tuple[str, ...] = ()
    """New pieces in the order of their ids."""
    merges: tuple[tuple[str, str], ...] = ()
    """New merges in the order of their ranks."""
    unreachable: tuple[str, ...] = ()
    """Pieces left out since no text would yield them."""
    refused: tuple[str, ...] = ()
    """Pieces left out since they may not be added, or are there already."""


class Vocabulary:
    """The pieces and merges of a BPE tokenizer."""

    def __init__(self, base: TextTokenizer) -> None:
        self._base = base
        self._parts: dict[str, Any] = json.loads(base.to_json())
        self.ids: dict[str, int] = self._parts["model"]["vocab"]
        """Piece to id; tokens added beside the model are not among them."""
        self.first_new = base.vocab_size
        self.looks_up_words = bool(self._parts["model"].get("ignore_merges"))
        """Whether a word that is a piece is that piece, whatever the merges make of it."""

    def grown(self, growth: Growth, extension: Extension) -> TextTokenizer:
        """Return the base with ``growth``, everything else as it was."""
        tokenizer = Tokenizer.from_str(json.dumps(self._parts | {"model": self._model(growth)}))
        return TextTokenizer(tokenizer, self._base.end_of_document, extension)

    def merging(self, growth: Growth) -> Tokenizer:
        """Only the merges: no normaliser, no pre-tokens, no added tokens, no whole words."""
        alone = dict.fromkeys(("normalizer", "pre_tokenizer", "post_processor"))
        model = self._model(growth) | {"ignore_merges": False}
        parts = self._parts | alone | {"added_tokens": [], "model": model}
        return Tokenizer.from_str(json.dumps(parts))

    def _model(self, growth: Growth) -> dict[str, Any]:
        model = self._parts["model"]
        # The library gives a token beside the model the next free id, so its own is written down.
        added = {token["content"]: token["id"] for token in self._parts["added_tokens"]}
        new = {piece: self.first_new + n for n, piece in enumerate(growth.pieces)}
        merges = [*model["merges"], *map(list, growth.merges)]
        return model | {"vocab": added | self.ids | new, "merges": merges}


def unreachable(merging: Tokenizer, pieces: Sequence[str]) -> list[str]:
    """Return the ``pieces`` that the merges do not make of their own characters."""
    return [
        piece
        for piece in pieces
        if [token.value for token in merging.model.tokenize(piece)] != [piece]
    ]
