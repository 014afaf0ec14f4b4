"""Continue text token by token, with a cache of keys and values."""

from collections.abc import Callable

import torch
from torch import Tensor

from feldspar.core.errors import UserError
from feldspar.model.context import KeyValueCache
from feldspar.model.decoder import Decoder
from feldspar.recipe.sections.model import LearnedPositions


@torch.no_grad()
def generate(
    decoder: Decoder,
    tokens: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
    end_of_document_id: int | None = None,
    n_real_vocab: int | None = None,
    use_cache: bool = True,
) -> Tensor:
    """Continue prompts (b, t) of equal length; return tokens (b, t + new).

    Temperature 0 takes the likeliest token; otherwise tokens are drawn with ``generator``, from
    the ``top_k`` likeliest if given. A scaling of positions that grows with the sequence counts by
    t + ``max_new_tokens`` from the first token on. A sequence that met ``end_of_document_id`` is
    filled with it, and the call ends when all have. ``use_cache=False`` recomputes everything: the
    reference. Raises UserError for an empty prompt or more tokens than a learned position table
    holds.
    """
    _check(decoder, tokens, max_new_tokens, temperature, top_k)
    was_training = decoder.training
    decoder.eval()
    try:
        return _continue(
            decoder,
            tokens,
            max_new_tokens,
            lambda logits: _choose(logits[:, :n_real_vocab], temperature, top_k, generator),
            end_of_document_id,
            use_cache,
        )
    finally:
        decoder.train(was_training)


def _check(
    decoder: Decoder, tokens: Tensor, max_new_tokens: int, temperature: float, top_k: int | None
) -> None:
    if tokens.dim() != 2 or tokens.shape[1] == 0:
        raise UserError(
            "generation needs a prompt of at least one token", found=tuple(tokens.shape)
        )
    if temperature < 0 or max_new_tokens < 0 or (top_k is not None and top_k < 1):
        raise UserError(
            "temperature and max_new_tokens must not be negative, top_k at least 1",
            found=f"temperature {temperature}, max_new_tokens {max_new_tokens}, top_k {top_k}",
        )
    total, settings = tokens.shape[1] + max_new_tokens, decoder.settings
    if isinstance(settings.positions, LearnedPositions) and total > settings.max_sequence_length:
        raise UserError(
            f"{total} tokens exceed the learned table of {settings.max_sequence_length} positions",
            do="shorten the prompt or ask for fewer new tokens",
        )


def _continue(
    decoder: Decoder,
    tokens: Tensor,
    max_new_tokens: int,
    choose: Callable[[Tensor], Tensor],
    end_of_document_id: int | None,
    use_cache: bool,
) -> Tensor:
    n_sequences, n_prompt = tokens.shape
    weight = decoder.token_embedding.weight
    cache, room = None, n_prompt + max_new_tokens
    if use_cache:
        device_type = tokens.device.type
        dtype = weight.dtype
        if torch.is_autocast_enabled(device_type):
            dtype = torch.get_autocast_dtype(device_type)
        cache = KeyValueCache(decoder.settings, n_sequences, room, dtype, tokens.device)
    finished = torch.zeros(n_sequences, dtype=torch.bool, device=tokens.device)
    fed = tokens
    for _ in range(max_new_tokens):
        hidden = decoder(fed, cache=cache, scaled_length=room)
        chosen = choose(decoder.logits(hidden[:, -1]).float())
        if end_of_document_id is not None:
            chosen = torch.where(finished, end_of_document_id, chosen)
            finished = finished | (chosen == end_of_document_id)
        tokens = torch.cat([tokens, chosen[:, None]], dim=1)
        fed = tokens if cache is None else chosen[:, None]
        if end_of_document_id is not None and bool(finished.all()):
            break
    return tokens


def _choose(
    logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None
) -> Tensor:
    """Draw one token (b,) for each row of logits (b, vocab)."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        lowest = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < lowest, float("-inf"))
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator).squeeze(1)
