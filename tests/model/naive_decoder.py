"""The decoder written out again, position by position and head by head, as a reference."""

import itertools
import math

import torch
from torch import Tensor

from feldspar.model.decoder import Decoder
from feldspar.recipe.sections.model import AlibiPositions, LearnedPositions, RotaryPositions
from feldspar.recipe.sections.position_scaling import LinearScaling


def naive_slope(head: int, n_heads: int) -> float:
    """ALiBi slope by the recursive rule of the paper's published code."""

    def power_of_two(n: int) -> list[float]:
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]

    def every(n: int) -> list[float]:
        if math.log2(n).is_integer():
            return power_of_two(n)
        closest = 2 ** math.floor(math.log2(n))
        return power_of_two(closest) + every(2 * closest)[0::2][: n - closest]

    return every(n_heads)[head]


def naive_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    slopes: list[float] | None = None,
    document_ids: Tensor | None = None,
    divisors: Tensor | None = None,
    window: int | None = None,
    soft_cap: float | None = None,
    biases: Tensor | None = None,
) -> Tensor:
    """Compute softmax attention in float64 with a loop over sequences, heads and queries.

    ``divisors`` (b, queries) divide the slopes; ``biases`` (b, heads, keys) replace them.
    """
    query, key, value = query.double(), key.double(), value.double()
    n_sequences, n_heads, n_queries, _ = query.shape
    share, past = n_heads // key.shape[1], key.shape[2] - n_queries
    out = torch.zeros_like(query)
    for b in range(n_sequences):
        for h in range(n_heads):
            for i in range(n_queries):
                seen = list(range(past + i + 1))
                if window is not None:
                    seen = seen[-window:]
                if document_ids is not None:
                    seen = [j for j in seen if document_ids[b, j] == document_ids[b, past + i]]
                scores = key[b, h // share, seen] @ query[b, h, i] * scale
                if soft_cap is not None:
                    scores = soft_cap * torch.tanh(scores / soft_cap)
                if biases is not None:
                    scores += biases[b, h, seen]
                elif slopes is not None:
                    slope = slopes[h] if divisors is None else slopes[h] / float(divisors[b, i])
                    scores -= slope * torch.tensor([past + i - j for j in seen]).double()
                out[b, h, i] = scores.softmax(0) @ value[b, h // share, seen]
    return out


def naive_rounded_biases(slopes: list[float], positions: Tensor) -> Tensor:
    """Round slopes, positions (b, t) and their products to bfloat16; return biases (b, h, t)."""

    def rounded(number: float) -> float:
        return float(torch.tensor(number, dtype=torch.bfloat16))

    return torch.tensor(
        [
            [[rounded(rounded(slope) * rounded(place)) for place in row] for slope in slopes]
            for row in positions.tolist()
        ]
    ).double()


def naive_rotation(
    x: Tensor, position: float, settings: RotaryPositions, base: float | None = None
) -> Tensor:
    """Rotate one head vector, pair after pair."""
    base = settings.base if base is None else base
    out, rotated = x.clone(), round(settings.fraction * len(x))
    for pair in range(rotated // 2):
        theta = position * base ** (-2 * pair / rotated)
        a, b = (2 * pair, 2 * pair + 1) if settings.interleaved else (pair, pair + rotated // 2)
        out[a] = x[a] * math.cos(theta) - x[b] * math.sin(theta)
        out[b] = x[a] * math.sin(theta) + x[b] * math.cos(theta)
    return out


def naive_factors(decoder: Decoder, positions: Tensor) -> Tensor:
    """Of linear scaling: by what each position (b, t), counted in its document, is divided."""
    scaling, factors = decoder.position_scaling, torch.ones(positions.shape).double()
    if not isinstance(scaling, LinearScaling):
        return factors
    for b, t in torch.cartesian_prod(*(torch.arange(n) for n in positions.shape)):
        if scaling.factor is not None:
            factors[b, t] = scaling.factor
            continue
        length = int(positions[b, t]) + 1
        if scaling.scope == "sequence":
            behind = positions[b, t:].tolist()
            length = next(
                (n for n, (p, q) in enumerate(itertools.pairwise(behind), 1) if q <= p),
                len(behind),
            ) + int(positions[b, t])
        factors[b, t] = max(1.0, length / scaling.train_length)
    return factors


def naive_logits(decoder: Decoder, tokens: Tensor, document_ids: Tensor | None = None) -> Tensor:
    """Compute logits (b, t, vocab) in float64 from the decoder's parameters and multipliers.

    Autograd can follow the computation back to the parameters.
    """
    settings = decoder.settings
    state = {name: value.double() for name, value in decoder.named_parameters()}
    positions = torch.zeros_like(tokens)
    for b in range(tokens.shape[0]):
        for t in range(1, tokens.shape[1]):
            new = document_ids is not None and document_ids[b, t] != document_ids[b, t - 1]
            positions[b, t] = 0 if new else positions[b, t - 1] + 1
    x = state["token_embedding.weight"][tokens]
    if isinstance(settings.positions, LearnedPositions):
        x = x + state["position_embedding.weight"][positions]
    if settings.embedding_norm:
        x = _norm(x, state, "embedding_norm", settings)
    x = x * decoder.embedding_multiplier
    streams = [x, x]
    how = None if settings.reversible is None else settings.reversible.type
    for index, block in enumerate(decoder.blocks):
        prefix = f"blocks.{index}."
        part = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if how == "revnet":  # the others read what this layer writes
            x = before = streams[1 - index % 2]
        elif how == "reformer":
            x = streams[1]
        read = x
        normed = _norm(read, part, "attention_norm", settings)
        branch = _attention(decoder, normed, part, index, positions, document_ids)
        branch = _norm(branch, part, "attention_output_norm", settings)
        x = x + branch * block.residual_multiplier
        if how == "reformer":
            streams[0] = x = streams[0] + branch * block.residual_multiplier
        if settings.branches == "sequential":
            read = x
        if settings.branches != "parallel_one_norm":
            normed = _norm(read, part, "feed_forward_norm", settings)
        inner = _linear(normed, part, "feed_forward.input", settings)
        if settings.gated:
            gate, up = inner[..., : settings.d_ff], inner[..., settings.d_ff :]
            inner = _activation(gate, settings.feed_forward) * up
        else:
            inner = _activation(inner, settings.feed_forward)
        branch = _linear(inner, part, "feed_forward.output", settings)
        branch = _norm(branch, part, "feed_forward_output_norm", settings)
        x = x + branch * block.residual_multiplier
        if how == "revnet":
            streams[index % 2] = streams[index % 2] + x - before
        elif how == "reformer":
            streams[1] = streams[1] + branch * block.residual_multiplier
    if how is not None:
        x = (streams[0] + streams[1]) / 2
    x = _norm(x, state, "final_norm", settings)
    head = state.get("output.weight", state["token_embedding.weight"])
    logits = x @ head.T * decoder.output_multiplier
    cap = settings.logit_soft_cap
    return logits if cap is None else cap * torch.tanh(logits / cap)


def _activation(x, kind):
    if kind == "relu":
        return x * (x > 0)
    if kind == "swiglu":
        return x / (1 + torch.exp(-x))
    if kind.endswith("_erf"):
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    cubic = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + torch.tanh(cubic))


def _attention(decoder, normed, part, index, positions, document_ids):
    settings, head_dim = decoder.settings, decoder.settings.head_width
    fused = _linear(normed, part, "attention.query_key_value", settings)
    q_width, kv_width = settings.n_heads * head_dim, settings.kv_heads * head_dim
    query, key, value = fused.split([q_width, kv_width, kv_width], -1)
    if settings.query_key_norm == "whole":
        query = _norm(query, part, "attention.query_norm", settings)
        key = _norm(key, part, "attention.key_norm", settings)
    query, key, value = (
        piece.unflatten(-1, (-1, head_dim)).transpose(1, 2).clone() for piece in (query, key, value)
    )
    if settings.query_key_norm == "head":
        query = _norm(query, part, "attention.query_norm", settings)
        key = _norm(key, part, "attention.key_norm", settings)
    window = settings.sliding_window
    full = (
        window is None
        or index in (window.full_layers or ())
        or (window.full_every is not None and not (index + 1) % window.full_every)
    )
    slopes, biases, factors = None, None, naive_factors(decoder, positions)
    if (
        isinstance(settings.positions, RotaryPositions)
        and index not in settings.positions.layers_without
    ):
        own = None if full else settings.positions.window_base
        query, key = query.clone(), key.clone()
        if own is not None:
            factors = torch.ones_like(factors)
        for tensor in (query, key):
            for b, h, t in torch.cartesian_prod(*(torch.arange(n) for n in tensor.shape[:3])):
                place = int(positions[b, t]) / float(factors[b, t])
                tensor[b, h, t] = naive_rotation(tensor[b, h, t], place, settings.positions, own)
    elif isinstance(settings.positions, AlibiPositions):
        times = settings.positions.slope_multiplier
        slopes = [naive_slope(h, settings.n_heads) for h in range(settings.n_heads)]
        if settings.positions.rounded:
            biases = times * naive_rounded_biases(slopes, positions)
        slopes = [times * slope for slope in slopes]
    scale = decoder.blocks[index].attention.score_multiplier
    span = None if full else window.tokens
    attended = naive_attention(
        query,
        key,
        value,
        scale,
        slopes,
        document_ids,
        factors,
        span,
        settings.attention_soft_cap,
        biases,
    )
    return _linear(attended.transpose(1, 2).flatten(2), part, "attention.output", settings)


def _linear(x, part, name, settings):
    """Map x, by one matrix or by those of Sparse-IFT (2303.11525, section 2)."""
    member = settings.sparse_iso_flop and settings.sparse_iso_flop.type
    if member == "parallel":
        count = settings.sparse_iso_flop.branches
        branches = [_matrix(x, part, f"{name}.branches.{index}") for index in range(count)]
        return sum(torch.where(branch > 0, branch, branch / 2) for branch in branches)
    if member == "factorized":
        inner = _norm(_matrix(x, part, f"{name}.u"), part, f"{name}.norm", settings)
        return _matrix(_activation(inner, settings.feed_forward), part, f"{name}.v")
    if member == "doped":
        low_rank = _matrix(_matrix(x, part, f"{name}.u"), part, f"{name}.v")
        return _matrix(x, part, f"{name}.w") + low_rank
    return _matrix(x, part, name)


def _matrix(x, part, name):
    out = x @ part[f"{name}.weight"].T
    return out + part[f"{name}.bias"] if f"{name}.bias" in part else out


def _norm(x, part, name, settings):
    """Normalise; a norm that the model lacks changes nothing."""
    if f"{name}.weight" not in part:
        return x
    if settings.norm.type == "layer":
        x = x - x.mean(-1, keepdim=True)
    gain = part[f"{name}.weight"] + (1 if settings.norm.unit_offset else 0)
    x = x / (x.pow(2).mean(-1, keepdim=True) + settings.norm.epsilon).sqrt() * gain
    return x + part[f"{name}.bias"] if f"{name}.bias" in part else x
