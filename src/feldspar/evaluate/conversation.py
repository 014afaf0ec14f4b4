"""Converse with a model by its chat template; the cache is kept from turn to turn."""

from collections.abc import Iterator, Sequence

import torch

from feldspar.core.errors import UserError
from feldspar.evaluate.continued_text import ContinuedText
from feldspar.evaluate.text_model import TextModel
from feldspar.model.context import KeyValueCache
from feldspar.model.generation import GREEDY, Sampling, new_cache
from feldspar.tokens.tokenizer.chat_encoding import ChatEncoder
from feldspar.tokens.tokenizer.chat_template import ChatTemplate, Message

FIRST_CACHE_TOKENS = 1024


class Conversation:
    """Messages of a user and answers of ``model``, in the form of its chat template.

    The tokens of the messages are those of ``apply_chat_template``; special tokens in a message's
    text are text. Only tokens that follow the unchanged beginning are computed again. Raises
    UserError for a model without a chat template, or with one that cannot be parsed.
    """

    def __init__(
        self,
        model: TextModel,
        *,
        system: str | None = None,
        max_new_tokens: int = 512,
        sampling: Sampling = GREEDY,
        seed: int = 0,
    ) -> None:
        tokenizer = model.tokenizer
        if tokenizer.chat_template is None:
            raise UserError(
                "the model's tokenizer has no chat template, so the model cannot converse",
                do="let it continue a text: feldspar generate MODEL --prompt TEXT",
            )
        template = ChatTemplate(tokenizer.chat_template, tokenizer.special_tokens)
        self.messages: list[Message] = []
        """All turns so far."""
        if system is not None:
            self.messages.append({"role": "system", "content": system})
        self.computed_tokens = 0
        """Tokens that the model has read or written, those that were computed again included."""
        self._model = model
        self._encoder = ChatEncoder(tokenizer, template)
        self._max_new_tokens = max_new_tokens
        self._sampling = sampling
        self._generator = torch.Generator(model.device).manual_seed(seed)
        self._cache: KeyValueCache | None = None
        self._cached: list[int] = []

    def ask(self, text: str) -> Iterator[str]:
        """Yield the pieces of the model's answer to ``text``.

        An answer ends at the end of the turn, after ``max_new_tokens``, or with the context. Raises
        UserError where the context has no room for an answer, or none for the rest of it.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        ids = self._encoder.encode(messages, add_generation_prompt=True)
        room = self._model.context_length - len(ids)
        if room < 1:
            raise self._full(len(ids))
        limit = min(self._max_new_tokens, room)
        cache = self._cache_for(ids, len(ids) + limit)
        begun = cache.length_tokens
        written = ContinuedText(
            self._model,
            ids,
            limit,
            sampling=self._sampling,
            generator=self._generator,
            cache=cache,
        )
        answer = []
        try:
            for piece in written:
                answer.append(piece)
                yield piece
        finally:
            self._cached = [*ids, *written.new_ids][: cache.length_tokens]
            self.computed_tokens += cache.length_tokens - begun
            self.messages = [*messages, {"role": "assistant", "content": "".join(answer)}]
        if len(written.new_ids) == room and not written.ended:
            raise self._full(len(ids) + room)

    def _cache_for(self, ids: Sequence[int], length_tokens: int) -> KeyValueCache:
        """Return the cache with the beginning of ``ids`` that it holds, and room for the rest."""
        model = self._model
        if self._cache is None:
            first = min(model.context_length, max(length_tokens, FIRST_CACHE_TOKENS))
            self._cache = new_cache(model.decoder, 1, first)
        if length_tokens > self._cache.max_length_tokens:
            twice = 2 * self._cache.max_length_tokens
            self._cache.grow(min(model.context_length, max(length_tokens, twice)))
        same = 0
        # The last token is always computed, because the next one follows from it.
        for old, new in zip(self._cached, ids[:-1], strict=False):
            if old != new:
                break
            same += 1
        self._cache.rewind(same)
        return self._cache

    def _full(self, n_tokens: int) -> UserError:
        return UserError(
            f"the conversation fills the model's context of {self._model.context_length:,} tokens",
            found=f"{n_tokens:,} tokens with the last message",
            do="begin a new conversation",
        )
