"""Fused causal attention with masks and ALiBi, without a bias of heads x length x length.

Shapes: q (b, h, i, d), k and v (b, g, j, d) with g key heads that divide h; keys end where queries
end, so query i stands at position j - i_total + i. The paths are all equal to the plain formula:

* training on a processor: ``blocked_attention``, where it suits;
* no mask needed: the causal flag (only ever when there are as many queries as keys: the flag is
  aligned top-left otherwise, and the first query would see the first key only);
* masked: queries in chunks of rows, each with the keys up to its end and a mask shared by heads;
* ALiBi by augmented heads: extra dimensions whose product is slope x key position, so that the
  kernel adds the bias itself; keys are counted back from each chunk's end to keep products small;
* ALiBi by explicit bias: the relative form, in float32, for decoding with a cache; and rounded
  biases of keys, in any case;
* capped scores: explicit scores, in float32, a chunk of rows at a time.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from feldspar.model.blocked_attention import blocked_attention, suits_blocks
from feldspar.model.visible_keys import Chunk, VisibleKeys

ATTENTION_CHUNK_ROWS = 512
"""Query rows that masked attention computes at a time."""
ALIBI_COLUMNS = 8
"""Extra dimensions of a head that carry ALiBi's slopes through a fused kernel."""
POSITION_STEP = 128


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    slopes: Tensor | None = None,
    visible: VisibleKeys = VisibleKeys(),
    dropout: float = 0.0,
    soft_cap: float | None = None,
    key_biases: Tensor | None = None,
) -> Tensor:
    """Compute causal attention, (b, h, i, d). ``scale`` multiplies q.k, never the ALiBi bias.

    ``slopes`` (h,) in float32 turn ALiBi on; (h, i) or (b, h, i) give each query its own.
    ``key_biases`` (h, j) or (b, h, j) are added to the scores instead.
    ``visible`` says which of the keys up to its own position a query sees. ``soft_cap`` limits the
    scores; it excludes ALiBi.
    """
    if soft_cap is not None:
        return capped_attention(query, key, value, scale, soft_cap, visible, dropout)
    if key_biases is not None:
        return key_biased(query, key, value, scale, key_biases, visible, dropout)
    if visible.document_ids is None and not dropout and suits_blocks(query, key):
        return blocked_attention(query, key, value, scale, slopes, visible)
    if slopes is None:
        if visible.all_before and (query.shape[2] in (1, key.shape[2])):
            return fused(query, key, value, scale, causal=query.shape[2] > 1, dropout=dropout)
        return masked_attention(query, key, value, scale, visible, dropout)
    if query.shape[2] == key.shape[2]:
        return augmented_alibi(query, key, value, scale, slopes, visible, dropout)
    return biased_alibi(query, key, value, scale, slopes, visible, dropout)


def fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    mask: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> Tensor:
    """Call torch's scaled dot-product attention; key heads may be fewer than query heads."""
    grouped = query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=causal,
        scale=scale,
        enable_gqa=grouped,
    )


def masked_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    visible: VisibleKeys,
    dropout: float = 0.0,
) -> Tensor:
    """Compute attention under an explicit mask, a chunk of query rows at a time."""
    parts = []
    for chunk in chunks(query, key, visible):
        mask = visible.mask(chunk, query.device)
        rows, keys, values = query[:, :, chunk.rows], key[:, :, chunk.keys], value[:, :, chunk.keys]
        parts.append(fused(rows, keys, values, scale, mask, dropout=dropout))
    return joined(parts)


def capped_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    soft_cap: float,
    visible: VisibleKeys = VisibleKeys(),
    dropout: float = 0.0,
) -> Tensor:
    """Compute attention on scores c tanh(q.k scale / c), which no fused kernel knows.

    The softmax is taken in float32 at least.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    groups = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    parts = []
    for chunk in chunks(query, key, visible):
        rows, keys, values = query[:, :, chunk.rows], key[:, :, chunk.keys], value[:, :, chunk.keys]
        scores = soft_capped((rows @ keys.transpose(2, 3)).to(dtype) * scale, soft_cap)
        scores = scores.masked_fill(~visible.mask(chunk, query.device), float("-inf"))
        probabilities = F.dropout(scores.softmax(dim=-1), dropout).to(values.dtype)
        parts.append(probabilities @ values)
    return joined(parts)


def soft_capped(values: Tensor, cap: float) -> Tensor:
    """Return c tanh(x / c), which is near x where x is small against the cap c."""
    return (values / cap).tanh() * cap


def chunks(query: Tensor, key: Tensor, visible: VisibleKeys) -> Iterator[Chunk]:
    """Yield the chunks of rows that masked attention computes at a time."""
    return visible.chunks(query.shape[2], key.shape[2], ATTENTION_CHUNK_ROWS)


def joined(parts: list[Tensor]) -> Tensor:
    """Return the chunks of rows as one tensor."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def augmented_alibi(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    slopes: Tensor,
    visible: VisibleKeys = VisibleKeys(),
    dropout: float = 0.0,
) -> Tensor:
    """Add ALiBi inside the fused kernel.

    Softmax ignores what is constant for a query, so slope x (key position) is bias enough. Slopes
    and positions are split in two parts each, which keeps their product right in bfloat16 up to
    32,768 tokens.
    """
    head_dim = query.shape[-1]
    query = torch.cat([query, _slope_columns(query, slopes / scale)], dim=-1)
    value = F.pad(value, (0, ALIBI_COLUMNS))
    parts = []
    for chunk in chunks(query, key, visible):
        keys = key[:, :, chunk.keys]
        keys = torch.cat([keys, _position_columns(keys)], dim=-1)
        rows, values = query[:, :, chunk.rows], value[:, :, chunk.keys]
        if chunk.rows.start == 0 and visible.all_before:
            parts.append(fused(rows, keys, values, scale, causal=True, dropout=dropout))
        else:
            mask = visible.mask(chunk, query.device)
            parts.append(fused(rows, keys, values, scale, mask, dropout=dropout))
    return joined(parts)[..., :head_dim]


def _slope_columns(query: Tensor, slopes: Tensor) -> Tensor:
    """Return (b, h, t, 8): the slope's high part twice, its remainder twice, zeros."""
    n_sequences, n_heads, length, _ = query.shape
    exact = slopes.to(torch.float64 if query.dtype == torch.float64 else torch.float32)
    high = exact.to(query.dtype)
    low = (exact - high.to(exact.dtype)).to(query.dtype)
    columns = F.pad(torch.stack([high, high, low, low], dim=-1), (0, ALIBI_COLUMNS - 4))
    if slopes.dim() == 1:
        columns = columns[:, None]
    return columns.expand(n_sequences, n_heads, length, ALIBI_COLUMNS)


def _position_columns(keys: Tensor) -> Tensor:
    """Return key positions counted back from a chunk's last, as multiples of 128 and remainders."""
    behind = torch.arange(1 - keys.shape[2], 1, device=keys.device)
    fine = behind % POSITION_STEP
    columns = torch.stack([behind - fine, fine], dim=-1).to(keys.dtype)
    columns = F.pad(columns.repeat(1, 2), (0, ALIBI_COLUMNS - 4))
    return columns.expand(*keys.shape[:3], ALIBI_COLUMNS)


def biased_alibi(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    slopes: Tensor,
    visible: VisibleKeys = VisibleKeys(),
    dropout: float = 0.0,
) -> Tensor:
    """Add -slope x (query position - key position), a chunk of query rows at a time."""

    def bias_of(chunk: Chunk) -> Tensor:
        begin, end = chunk.past + chunk.rows.start, chunk.past + chunk.rows.stop
        rows = torch.arange(begin, end, device=query.device)
        places = torch.arange(chunk.keys.start, chunk.keys.stop, device=query.device)
        rows_slopes = slopes[:, None] if slopes.dim() == 1 else slopes[..., chunk.rows]
        return rows_slopes[..., None] * (places - rows[:, None])

    return _biased(query, key, value, scale, bias_of, visible, dropout)


def key_biased(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    biases: Tensor,
    visible: VisibleKeys = VisibleKeys(),
    dropout: float = 0.0,
) -> Tensor:
    """Add the bias of each key, a chunk of query rows at a time."""

    def bias_of(chunk: Chunk) -> Tensor:
        return biases[..., None, chunk.keys]

    return _biased(query, key, value, scale, bias_of, visible, dropout)


def _biased(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    bias_of: Callable[[Chunk], Tensor],
    visible: VisibleKeys,
    dropout: float,
) -> Tensor:
    """Add (h, rows, keys) or (b, h, rows, keys) to the scores of each chunk, in float32 at least.

    One row may stand for all.
    """
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    parts = []
    for chunk in chunks(query, key, visible):
        bias = bias_of(chunk).to(dtype)
        bias = torch.where(visible.mask(chunk, query.device), bias, float("-inf"))
        if bias.dim() == 3:
            bias = bias.unsqueeze(0)
        rows = query[:, :, chunk.rows].to(dtype)
        keys, values = key[:, :, chunk.keys].to(dtype), value[:, :, chunk.keys].to(dtype)
        parts.append(fused(rows, keys, values, scale, bias, dropout=dropout).to(query.dtype))
    return joined(parts)
