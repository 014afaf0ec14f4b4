"""Continue a text, piece by piece, as the model makes it."""

from collections.abc import Iterator, Sequence

import torch

from feldspar.evaluate.text_model import TextModel
from feldspar.model.context import KeyValueCache
from feldspar.model.generation import GREEDY, Sampling, stream_tokens
from feldspar.tokens.tokenizer.text_stream import TextStream


class ContinuedText:
    """The continuation of the tokens ``prompt`` by at most ``max_new_tokens`` tokens.

    Iterate over it once: it yields pieces of text, and never a part of a character. Special tokens
    have no text. It ends after a token of the model's ``stop_ids``. With a ``cache``, which holds
    the first tokens of ``prompt``, only the others are read, and growing scalings of positions
    count by the model's context. Raises UserError for more tokens than
    a learned position table holds.
    """

    def __init__(
        self,
        model: TextModel,
        prompt: Sequence[int],
        max_new_tokens: int,
        *,
        sampling: Sampling = GREEDY,
        generator: torch.Generator | None = None,
        cache: KeyValueCache | None = None,
    ) -> None:
        self.new_ids: list[int] = []
        """Tokens so far, the one that ended the text included."""
        self.ended = False
        """True if the model ended the text itself."""
        self._text = TextStream(model.tokenizer, prompt)
        self._stop_ids = model.stop_ids
        known, scaled = (0, None) if cache is None else (cache.length_tokens, model.context_length)
        self._chosen = stream_tokens(
            model.decoder,
            torch.tensor([list(prompt)[known:]], device=model.device),
            max_new_tokens,
            sampling=sampling,
            generator=generator,
            stop_ids=self._stop_ids,
            n_real_vocab=model.n_real_vocab,
            cache=cache,
            scaled_length=scaled,
        )

    def __iter__(self) -> Iterator[str]:
        """Yield the pieces that are not empty."""
        for chosen in self._chosen:
            token = int(chosen)
            self.new_ids.append(token)
            if token in self._stop_ids:
                self.ended = True
            elif piece := self._text.add(token):
                yield piece
        if piece := self._text.end():
            yield piece
