"""Score how likely continuations are after their contexts; a shared context is computed once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from feldspar.core.progress import progress
from feldspar.evaluate.text_model import TextModel
from feldspar.model.context import KeyValueCache
from feldspar.model.position_scaling import grows_with_length


@dataclass(frozen=True)
class Continuation:
    """Tokens to score after their context; the context has at least one token."""

    context: Sequence[int]
    tokens: Sequence[int]


@dataclass(frozen=True)
class Score:
    """Natural log-likelihood of a continuation, and whether greedy decoding would produce it."""

    log_likelihood: float
    is_greedy: bool


@dataclass
class _Group:
    """Requests that share one context."""

    context: tuple[int, ...]
    members: dict[int, list[int]] = field(default_factory=dict)


@torch.no_grad()
def score_continuations(
    model: TextModel, requests: Sequence[Continuation], batch_sequences: int = 16
) -> list[Score]:
    """Return the score of each request, in order.

    Contexts that are too long lose their beginning. Of a continuation longer than the model's
    context, only the last part is scored.
    """
    scores: dict[int, Score] = {}
    model.decoder.eval()
    if grows_with_length(model.decoder.position_scaling):
        batch_sequences = 1  # a longer neighbour would change the positions of a row
    with progress("scoring", len(requests), "continuations") as advance:
        for group in _groups(requests, model.context_length):
            numbers = list(group.members)
            for begin in range(0, len(numbers), batch_sequences):
                some = numbers[begin : begin + batch_sequences]
                found = _score(model, group.context, [group.members[number] for number in some])
                scores.update(zip(some, found, strict=True))
                advance(len(some))
    return [scores[number] for number in range(len(requests))]


def _groups(requests: Sequence[Continuation], context_length: int) -> Iterable[_Group]:
    groups: dict[tuple[int, ...], _Group] = {}
    for number, request in enumerate(requests):
        tokens = list(request.tokens)[-context_length:]
        # The last token is only predicted, so context and tokens may be one longer than the model.
        room = context_length + 1 - len(tokens)
        context = tuple(request.context)[-room:]
        groups.setdefault(context, _Group(context)).members[number] = tokens
    return groups.values()


def _score(model: TextModel, context: tuple[int, ...], rows: list[list[int]]) -> list[Score]:
    """Score continuations of one context: compute the context once, then all rows after it
    at once."""
    longest = max(map(len, rows))
    if longest == 0:
        return [Score(0.0, True) for _ in rows]
    hidden = _hidden(model, context, rows)
    logits = model.decoder.logits(hidden)[..., : model.n_real_vocab].float()
    log_probabilities = logits.log_softmax(dim=-1)
    scores = []
    for row, tokens in enumerate(rows):
        wanted = torch.tensor(tokens, dtype=torch.long, device=hidden.device)
        predicted = log_probabilities[row, : len(tokens)]
        chosen = predicted.gather(1, wanted[:, None]).double().sum()
        greedy = bool((predicted.argmax(dim=-1) == wanted).all())
        scores.append(Score(float(chosen), greedy))
    return scores


def _hidden(model: TextModel, context: tuple[int, ...], rows: list[list[int]]) -> Tensor:
    """Return hidden states (rows, longest, d) from which the tokens of each row are predicted."""
    device = model.device
    longest = max(map(len, rows))
    fed = [(tokens + [0] * longest)[: longest - 1] for tokens in rows]
    if len(rows) == 1 or longest == 1:
        whole = torch.tensor([[*context, *fed[0]]], device=device)
        return model.decoder(whole)[:, len(context) - 1 :].expand(len(rows), -1, -1)
    prompt = torch.tensor([context], device=device)
    settings, dtype = model.decoder.settings, model.decoder.token_embedding.weight.dtype
    if torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
    first = KeyValueCache(settings, 1, len(context), dtype, device)
    last_hidden = model.decoder(prompt, cache=first)[:, -1:]
    cache = KeyValueCache(settings, len(rows), len(context) + longest - 1, dtype, device)
    for layer in range(settings.n_layers):
        cache.keys[layer][:, :, : len(context)] = first.keys[layer]
        cache.values[layer][:, :, : len(context)] = first.values[layer]
    cache.advance(len(context))
    behind = model.decoder(torch.tensor(fed, device=device), cache=cache)
    return torch.cat([last_hidden.expand(len(rows), -1, -1), behind], dim=1)
