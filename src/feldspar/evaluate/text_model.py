"""A decoder and the tokenizer of its texts, as all measurements use them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from feldspar.core.errors import FeldsparError, UserError
from feldspar.core.progress import say
from feldspar.model.decoder import Decoder
from feldspar.recipe.sections.model import LearnedPositions
from feldspar.tokens.tokenizer.chat_encoding import end_of_turn_id
from feldspar.tokens.tokenizer.chat_template import ChatTemplate
from feldspar.tokens.tokenizer.text_tokenizer import TextTokenizer


@dataclass(frozen=True)
class TextModel:
    """A decoder and its tokenizer.

    Rows of the embedding from ``n_real_vocab`` on are padding, to which training gave no
    probability; None: each row is a token. ``longest_context`` replaces the model's longest context
    if positions are not learned. Raises UserError for more tokens than the embedding or the learned
    positions have.
    """

    decoder: Decoder
    tokenizer: TextTokenizer
    n_real_vocab: int | None = None
    longest_context: int | None = None

    def __post_init__(self) -> None:
        rows = self.decoder.token_embedding.num_embeddings
        if self.tokenizer.needed_rows > rows:
            raise UserError(
                f"the tokenizer has {self.tokenizer.needed_rows:,} tokens, but the model "
                f"has {rows:,} rows; they do not belong together"
            )
        settings = self.decoder.settings
        learned = isinstance(settings.positions, LearnedPositions)
        if learned and self.context_length > settings.max_sequence_length:
            raise UserError(
                f"{self.context_length} tokens are more than the {settings.max_sequence_length} "
                "learned positions of the model"
            )

    @property
    def context_length(self) -> int:
        """Longest context in tokens."""
        return self.longest_context or self.decoder.settings.max_sequence_length

    @property
    def end_of_document_id(self) -> int:
        """Id of the token that ends documents."""
        return self.tokenizer.end_of_document_id

    @property
    def before_id(self) -> int:
        """Id of the token before a text: the beginning of a sequence or the end of a document."""
        return self.tokenizer.before_id

    def begun(self, prompt: Sequence[int]) -> list[int]:
        """Return the tokens of a prompt as the model read them in training: at the beginning of a
        sequence. An empty prompt begins a document."""
        return [*self.tokenizer.begin_ids, *prompt] or [self.before_id]

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids of the tokens that end a text which the model writes: ends of a document or turn."""
        template, ids = self.tokenizer.chat_template, self.tokenizer.end_ids
        if template is None:
            return ids
        try:
            parsed = ChatTemplate(template, self.tokenizer.special_tokens)
        except FeldsparError as error:
            say(f"warning: the model's end of turn is unknown: {error.what}")
            return ids
        turn = end_of_turn_id(self.tokenizer, parsed)
        return ids if turn is None or turn in ids else (*ids, turn)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.decoder.token_embedding.weight.device


def with_separators(
    document: np.ndarray,
    before_id: int,
    end_of_document_id: int,
    begin: int = 0,
    end: int | None = None,
) -> np.ndarray:
    """Return tokens ``begin`` to ``end`` - 1 of [before] tokens [end of document], i64.

    Only this part is copied, so windows of one huge document cost no more than those of many.
    """
    length = len(document)
    end = length + 2 if end is None else end
    part = np.full(end - begin, end_of_document_id, np.int64)
    own = document[max(begin - 1, 0) : max(end - 1, 0)]
    skip = 1 if begin == 0 else 0
    part[:skip] = before_id
    part[skip : skip + len(own)] = own
    return part
