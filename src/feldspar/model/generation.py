"""Continue text token by token, with a cache of keys and values."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from feldspar.core.errors import UserError
from feldspar.model.context import KeyValueCache
from feldspar.model.decoder import Decoder
from feldspar.recipe.sections.model import LearnedPositions


@dataclass(frozen=True)
class Sampling:
    """Settings by which the next token is chosen.

    Temperature 0 takes the likeliest token. Otherwise logits are divided by ``temperature``, and a
    token is drawn from the ``top_k`` likeliest, and of these from the fewest likeliest whose
    probabilities sum to ``top_p`` or more (nucleus sampling, arXiv 1904.09751, section 3.1). Raises
    UserError for a value outside its range.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise UserError("temperature must be a number from 0 on", found=self.temperature)
        if self.top_k is not None and self.top_k < 1:
            raise UserError("top_k must be at least 1", found=self.top_k)
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError("top_p must be above 0 and at most 1", found=self.top_p)

    def choose(self, logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw one token (b,) for each row of float32 ``logits`` (b, vocab)."""
        if self.temperature == 0:
            return logits.argmax(dim=-1)
        probabilities = self.truncated(logits).softmax(dim=-1)
        return torch.multinomial(probabilities, 1, generator=generator).squeeze(1)

    def truncated(self, logits: Tensor) -> Tensor:
        """Return ``logits`` (b, vocab) over the temperature, -inf for tokens never drawn.

        The temperature must not be 0.
        """
        logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            lowest = logits.topk(self.top_k, dim=-1).values[:, -1:]
            logits = logits.masked_fill(logits < lowest, float("-inf"))
        if self.top_p is not None and self.top_p < 1:
            ordered, places = logits.sort(dim=-1, descending=True, stable=True)
            probabilities = ordered.softmax(dim=-1)
            likelier = probabilities.cumsum(dim=-1) - probabilities
            left_out = likelier >= self.top_p
            left_out[:, 0] = False  # rounding must not leave out the likeliest token
            left_out = torch.zeros_like(left_out).scatter(-1, places, left_out)
            logits = logits.masked_fill(left_out, float("-inf"))
        return logits


GREEDY = Sampling()


def generate(
    decoder: Decoder,
    tokens: Tensor,
    max_new_tokens: int,
    *,
    sampling: Sampling = GREEDY,
    generator: torch.Generator | None = None,
    stop_ids: Sequence[int] = (),
    n_real_vocab: int | None = None,
    use_cache: bool = True,
) -> Tensor:
    """Continue prompts (b, t) of equal length; return tokens (b, t + new).

    A sequence that met one of ``stop_ids`` is filled with the first of them. ``use_cache=False``
    recomputes everything: the reference. Arguments and errors are those of ``stream_tokens``.
    """
    new = stream_tokens(
        decoder,
        tokens,
        max_new_tokens,
        sampling=sampling,
        generator=generator,
        stop_ids=stop_ids,
        n_real_vocab=n_real_vocab,
        use_cache=use_cache,
    )
    return torch.cat([tokens, *(chosen[:, None] for chosen in new)], dim=1)


def stream_tokens(
    decoder: Decoder,
    tokens: Tensor,
    max_new_tokens: int,
    *,
    sampling: Sampling = GREEDY,
    generator: torch.Generator | None = None,
    stop_ids: Sequence[int] = (),
    n_real_vocab: int | None = None,
    use_cache: bool = True,
    cache: KeyValueCache | None = None,
    scaled_length: int | None = None,
) -> Iterator[Tensor]:
    """Return an iterator over the new tokens (b,) of prompts (b, t) of equal length.

    Tokens are drawn with ``generator``. The iterator ends when every sequence has met one of
    ``stop_ids``; this token is yielded too. A scaling of positions that grows with the sequence
    counts by ``scaled_length``, by default t + ``max_new_tokens``, from the first token on.

    A ``cache`` of the caller continues the tokens that it holds: ``tokens`` are those after them,
    and the cache then holds all but the last token.

    Raises UserError for an empty prompt or more tokens than a learned position table holds.
    """
    total = (0 if cache is None else cache.length_tokens) + tokens.shape[1] + max_new_tokens
    _check(decoder, tokens, total, max_new_tokens)
    if use_cache and cache is None:
        cache = new_cache(decoder, tokens.shape[0], total)
    length = scaled_length or total

    def choose(hidden: Tensor) -> Tensor:
        logits = decoder.logits(hidden[:, -1])[:, :n_real_vocab].float()
        return sampling.choose(logits, generator)

    return _stream(decoder, tokens, max_new_tokens, choose, stop_ids, cache, length)


@torch.no_grad()
def _stream(
    decoder: Decoder,
    tokens: Tensor,
    max_new_tokens: int,
    choose: Callable[[Tensor], Tensor],
    stop_ids: Sequence[int],
    cache: KeyValueCache | None,
    length: int,
) -> Iterator[Tensor]:
    """Yield each chosen token; ``choose`` maps hidden states to tokens."""
    stops = torch.tensor(list(stop_ids), dtype=tokens.dtype, device=tokens.device)
    finished = torch.zeros(tokens.shape[0], dtype=torch.bool, device=tokens.device)
    was_training = decoder.training
    decoder.eval()
    try:
        for _ in range(max_new_tokens):
            chosen = choose(decoder(tokens, cache=cache, scaled_length=length))
            if stop_ids:
                chosen = torch.where(finished, stops[0], chosen)
                finished = finished | torch.isin(chosen, stops)
            yield chosen
            if stop_ids and bool(finished.all()):
                return
            last = chosen[:, None]
            tokens = torch.cat([tokens, last], dim=1) if cache is None else last
    finally:
        decoder.train(was_training)


def new_cache(decoder: Decoder, n_sequences: int, length_tokens: int) -> KeyValueCache:
    """Return an empty cache for ``length_tokens`` tokens, in the type that the decoder computes
    in.
    """
    weight = decoder.token_embedding.weight
    device_type, dtype = weight.device.type, weight.dtype
    if torch.is_autocast_enabled(device_type):
        dtype = torch.get_autocast_dtype(device_type)
    return KeyValueCache(decoder.settings, n_sequences, length_tokens, dtype, weight.device)


def _check(decoder: Decoder, tokens: Tensor, total: int, max_new_tokens: int) -> None:
    if tokens.dim() != 2 or tokens.shape[1] == 0:
        raise UserError(
            "generation needs a prompt of at least one token", found=tuple(tokens.shape)
        )
    if max_new_tokens < 0:
        raise UserError("max_new_tokens must not be negative", found=max_new_tokens)
    settings = decoder.settings
    if isinstance(settings.positions, LearnedPositions) and total > settings.max_sequence_length:
        raise UserError(
            f"{total} tokens exceed the learned table of {settings.max_sequence_length} positions",
            do="shorten the prompt or ask for fewer new tokens",
        )
