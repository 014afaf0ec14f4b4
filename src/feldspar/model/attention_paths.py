"""Fused causal attention with masks and ALiBi, without a bias of heads x length x length.

Shapes: q (b, h, i, d), k and v (b, g, j, d) with g key heads that divide h; keys end where queries
end, so query i stands at position j - i_total + i. The paths are all equal to the plain formula:

* training on a processor: ``blocked_attention``, where it suits;
* no mask needed: the causal flag (only ever when there are as many queries as keys: the flag is
  aligned top-left otherwise, and the first query would see the first key only);
* masked: queries in chunks of rows, each with the keys up to its end and a mask shared by heads;
* ALiBi by augmented heads: extra dimensions whose product is slope x key position, so that the
  kernel adds the bias itself; keys are counted back from each chunk's end to keep products small;
* ALiBi by explicit bias: the relative form, in float32, for decoding with a cache.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from feldspar.model.blocked_attention import blocked_attention, suits_blocks
from feldspar.model.footprint import ALIBI_COLUMNS, ATTENTION_CHUNK_ROWS

POSITION_STEP = 128


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    slopes: Tensor | None = None,
    document_ids: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Causal attention; (b, h, i, d). ``scale`` multiplies q.k, never the ALiBi bias.

    ``slopes`` (h,) in float32 turn ALiBi on; (h, i) or (b, h, i) give each query its own.
    ``document_ids`` (b, t) keep attention inside a document and need as many queries as keys.
    """
    if document_ids is None and not dropout and suits_blocks(query, key):
        return blocked_attention(query, key, value, scale, slopes)
    if slopes is None:
        if document_ids is None and (query.shape[2] in (1, key.shape[2])):
            return fused(query, key, value, scale, causal=query.shape[2] > 1, dropout=dropout)
        return masked_attention(query, key, value, scale, document_ids, dropout)
    if query.shape[2] == key.shape[2]:
        return augmented_alibi(query, key, value, scale, slopes, document_ids, dropout)
    return biased_alibi(query, key, value, scale, slopes, document_ids, dropout)


def fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    mask: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> Tensor:
    """Scaled dot-product attention of torch, with fewer key heads than query heads if so shaped."""
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
    document_ids: Tensor | None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention under an explicit mask, a chunk of query rows at a time."""
    parts = []
    for begin, end, stop in chunks(query, key):
        mask = visible(begin, end, stop, key.shape[2] - query.shape[2], document_ids, query.device)
        rows, keys, values = query[:, :, begin:end], key[:, :, :stop], value[:, :, :stop]
        parts.append(fused(rows, keys, values, scale, mask, dropout=dropout))
    return joined(parts)


def chunks(query: Tensor, key: Tensor) -> Iterator[tuple[int, int, int]]:
    """First and last query row of each chunk, and how many keys it may see."""
    n_rows, past = query.shape[2], key.shape[2] - query.shape[2]
    for begin in range(0, n_rows, ATTENTION_CHUNK_ROWS):
        end = min(begin + ATTENTION_CHUNK_ROWS, n_rows)
        yield begin, end, past + end


def visible(
    begin: int,
    end: int,
    stop: int,
    past: int,
    document_ids: Tensor | None,
    device: torch.device,
) -> Tensor:
    """Which keys each query row sees: (rows, keys), or (b, 1, rows, keys) with documents."""
    rows = torch.arange(past + begin, past + end, device=device)
    mask = rows[:, None] >= torch.arange(stop, device=device)
    if document_ids is None:
        return mask
    same = document_ids[:, begin:end, None] == document_ids[:, None, :stop]
    return (mask & same).unsqueeze(1)


def joined(parts: list[Tensor]) -> Tensor:
    """The chunks of rows as one tensor."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def augmented_alibi(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    slopes: Tensor,
    document_ids: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """ALiBi inside the fused kernel: softmax ignores what is constant for a query, so
    slope x (key position) is bias enough. Slopes and positions are split in two parts each, which
    keeps their product right in bfloat16 up to 32,768 tokens.
    """
    head_dim = query.shape[-1]
    query = torch.cat([query, _slope_columns(query, slopes / scale)], dim=-1)
    value = F.pad(value, (0, ALIBI_COLUMNS))
    parts = []
    for begin, end, stop in chunks(query, key):
        keys = torch.cat([key[:, :, :stop], _position_columns(key, stop)], dim=-1)
        rows, values = query[:, :, begin:end], value[:, :, :stop]
        if begin == 0 and document_ids is None:
            parts.append(fused(rows, keys, values, scale, causal=True, dropout=dropout))
        else:
            mask = visible(begin, end, stop, 0, document_ids, query.device)
            parts.append(fused(rows, keys, values, scale, mask, dropout=dropout))
    return joined(parts)[..., :head_dim]


def _slope_columns(query: Tensor, slopes: Tensor) -> Tensor:
    """(b, h, t, 8): the slope's high part twice, its remainder twice, zeros."""
    n_sequences, n_heads, length, _ = query.shape
    exact = slopes.to(torch.float64 if query.dtype == torch.float64 else torch.float32)
    high = exact.to(query.dtype)
    low = (exact - high.to(exact.dtype)).to(query.dtype)
    columns = F.pad(torch.stack([high, high, low, low], dim=-1), (0, ALIBI_COLUMNS - 4))
    if slopes.dim() == 1:
        columns = columns[:, None]
    return columns.expand(n_sequences, n_heads, length, ALIBI_COLUMNS)


def _position_columns(key: Tensor, stop: int) -> Tensor:
    """(b, g, stop, 8): positions before the chunk's end, split in multiples of 128 and the rest."""
    behind = torch.arange(1 - stop, 1, device=key.device)
    fine = behind % POSITION_STEP
    columns = torch.stack([behind - fine, fine], dim=-1).to(key.dtype)
    columns = F.pad(columns.repeat(1, 2), (0, ALIBI_COLUMNS - 4))
    return columns.expand(key.shape[0], key.shape[1], stop, ALIBI_COLUMNS)


def biased_alibi(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    slopes: Tensor,
    document_ids: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """ALiBi as -slope x (query position - key position), a chunk of query rows at a time."""
    past = key.shape[2] - query.shape[2]
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    parts = []
    for begin, end, stop in chunks(query, key):
        rows = torch.arange(past + begin, past + end, device=query.device)
        distance = (rows[:, None] - torch.arange(stop, device=query.device)).to(dtype)
        rows_slopes = slopes[:, None] if slopes.dim() == 1 else slopes[..., begin:end]
        bias = -rows_slopes.to(dtype)[..., None] * distance
        mask = visible(begin, end, stop, past, document_ids, query.device)
        bias = torch.where(mask, bias, float("-inf"))
        if bias.dim() == 3:
            bias = bias.unsqueeze(0)
        rows_q, keys, values = query[:, :, begin:end], key[:, :, :stop], value[:, :, :stop]
        out = fused(
            rows_q.to(dtype), keys.to(dtype), values.to(dtype), scale, bias, dropout=dropout
        )
        parts.append(out.to(query.dtype))
    return joined(parts)
