"""What a training step keeps of a decoder in memory, from its settings alone, without torch.

Counted tensor by tensor as the modules save them for their backward pass; a test measures the saved
tensors of real models and holds the two together. Sizes that decide what is kept are defined here,
where the planner can read them, and used by the modules.
"""

from dataclasses import dataclass

from feldspar.model.shapes import resolved_vocab_size
from feldspar.recipe.sections.model import (
    AlibiPositions,
    LearnedPositions,
    ModelSettings,
    RotaryPositions,
)

WIDE = 4
"""Bytes of float32: the residual stream, normalisation, attention's statistics."""
INDEX = 8
"""Bytes of a token's index."""

ATTENTION_CHUNK_ROWS = 512
"""Query rows that masked attention takes at a time."""
ALIBI_COLUMNS = 8
"""Extra dimensions of a head that carry ALiBi's slopes through a fused kernel."""
KEPT_BLOCK_ROWS = 64
"""Query rows of a block of probabilities that are kept on a processor."""
KEPT_BYTES = 64 * 2**20
"""Most probabilities of a layer that are kept; above it the fused kernel is the better choice."""

LOGITS_CHUNK_BYTES = {"cpu": 8 * 2**20}
"""Size of the logits buffer by device: what a processor's last-level cache holds, ..."""
LOGITS_CHUNK_BYTES_DEFAULT = 256 * 2**20
"""... or what keeps an accelerator busy."""
MINIMUM_LOGITS_ROWS = 256
"""Fewer rows would read and write the weight's gradient more often than they save."""


@dataclass(frozen=True)
class MicroBatch:
    """The sequences that one process computes at a time, and how."""

    sequences: int
    context_length: int
    on_accelerator: bool = False
    bfloat16: bool = False
    """Whether matrix products run in bfloat16 (autocast)."""
    documents: bool = False
    """Whether attention stays within documents."""
    recompute: bool = False
    """Whether blocks keep their input only and are computed again in the backward pass."""

    @property
    def tokens(self) -> int:
        """Tokens of all sequences."""
        return self.sequences * self.context_length

    @property
    def product_bytes(self) -> int:
        """Bytes of an entry that comes from, or goes into, a matrix product."""
        return 2 if self.bfloat16 else WIDE


def activation_bytes(model: ModelSettings, batch: MicroBatch) -> int:
    """Bytes kept from the forward pass for the backward pass, weights and head left out.

    With recomputation: every block's input, and all of the one block that is computed again.
    """
    entering = WIDE * model.d_model * batch.tokens
    block = _block_bytes(model, batch)
    if batch.recompute:
        blocks = (model.n_layers - 1) * entering + block
    else:
        blocks = model.n_layers * block
    return blocks + _around_blocks_bytes(model, batch)


def head_bytes(model: ModelSettings, batch: MicroBatch) -> int:
    """Bytes of the fused cross-entropy at its largest.

    The gradients of hidden states and head, a copy of the hidden states, one chunk of logits; in
    bfloat16 that chunk three times (4 + 2 + 2 bytes) and the head twice more.
    """
    vocab_size, width = resolved_vocab_size(model), model.d_model
    device = "accelerator" if batch.on_accelerator else "cpu"
    chunk_bytes = LOGITS_CHUNK_BYTES.get(device, LOGITS_CHUNK_BYTES_DEFAULT)
    rows = min(max(MINIMUM_LOGITS_ROWS, chunk_bytes // (WIDE * vocab_size)), batch.tokens)
    logits = rows * vocab_size * (8 if batch.bfloat16 else WIDE)
    copies = 2 * 2 * vocab_size * width if batch.bfloat16 else 0
    hidden = (WIDE + batch.product_bytes) * width * batch.tokens
    return logits + copies + hidden + WIDE * vocab_size * width


def product_copy_bytes(model: ModelSettings, batch: MicroBatch) -> int:
    """Bytes of the blocks' matrices in bfloat16, which autocast keeps until the backward pass."""
    if not batch.bfloat16:
        return 0
    attention = 2 * model.d_model * (_query_width(model) + _key_width(model))
    feed_forward = (3 if model.feed_forward == "swiglu" else 2) * model.d_model * model.d_ff
    return 2 * model.n_layers * (attention + feed_forward)


def _query_width(model: ModelSettings) -> int:
    return model.n_heads * model.head_width


def _key_width(model: ModelSettings) -> int:
    return model.kv_heads * model.head_width


def _norm_bytes(model: ModelSettings, batch: MicroBatch) -> int:
    """The input, and one (rms) or two (layer) statistics of each token."""
    statistics = 1 if model.norm.type == "rms" else 2
    return WIDE * (model.d_model + statistics) * batch.tokens


def _dropout_bytes(model: ModelSettings, batch: MicroBatch, entry_bytes: int) -> int:
    """The mask: a byte an entry on an accelerator, the factors themselves on a processor."""
    if not model.dropout:
        return 0
    return (1 if batch.on_accelerator else entry_bytes) * model.d_model * batch.tokens


def _block_bytes(model: ModelSettings, batch: MicroBatch) -> int:
    # GELU keeps its input and its output; SwiGLU keeps gate, up, silu(gate) and their product.
    inner = (4 if model.feed_forward == "swiglu" else 2) * model.d_ff
    products = batch.product_bytes * (2 * model.d_model + inner) * batch.tokens
    dropout = 2 * _dropout_bytes(model, batch, batch.product_bytes)
    return 2 * _norm_bytes(model, batch) + products + dropout + _attention_bytes(model, batch)


def _around_blocks_bytes(model: ModelSettings, batch: MicroBatch) -> int:
    """Tokens, the final norm, rotary tables and the mask of dropped embeddings."""
    indices = INDEX * batch.tokens
    if batch.documents and isinstance(model.positions, LearnedPositions):
        indices *= 2
    rotary = 0
    if isinstance(model.positions, RotaryPositions):
        tables = batch.tokens if batch.documents else batch.context_length
        rotary = WIDE * round(model.positions.fraction * model.head_width) * tables
    dropped = _dropout_bytes(model, batch, WIDE)
    return indices + rotary + dropped + _norm_bytes(model, batch)


def _attention_bytes(model: ModelSettings, batch: MicroBatch) -> int:
    """Queries, keys, values and what comes out, and what the path of attention needs beside."""
    query, key = _query_width(model), _key_width(model)
    rotated = query + key if isinstance(model.positions, RotaryPositions) else 0
    if _keeps_probabilities(model, batch):
        widths = 5 * query if batch.sequences > 1 else rotated + 2 * query + 2 * key
        return WIDE * (widths * batch.tokens + _kept_entries(model, batch))
    if model.dropout and not batch.on_accelerator:
        return _unfused_bytes(model, batch)
    chunks = _chunks(batch.context_length)
    scores, statistics = 0, WIDE * model.n_heads * batch.tokens
    if isinstance(model.positions, AlibiPositions):
        # Queries and values are padded copies, keys a padded copy for each chunk.
        heads, kv_heads = model.n_heads * ALIBI_COLUMNS, model.kv_heads * ALIBI_COLUMNS
        once = (2 * (query + heads) + query + key + kv_heads) * batch.tokens
        repeated = (key + kv_heads) * batch.sequences * sum(stop for _, stop in chunks)
        widths = once + repeated
        if not batch.documents:
            scores = sum(rows * stop for rows, stop in chunks[1:])
    else:
        joined = query if batch.documents and len(chunks) > 1 else 0
        widths = (rotated + 2 * query + 2 * key + joined) * batch.tokens
    if batch.documents:
        scores = batch.sequences * sum(rows * stop for rows, stop in chunks)
    return batch.product_bytes * (widths + scores) + statistics


def _keeps_probabilities(model: ModelSettings, batch: MicroBatch) -> bool:
    """Whether attention takes the path that keeps them (``model.blocked_attention``)."""
    if batch.on_accelerator or batch.bfloat16 or batch.documents or model.dropout:
        return False
    entries = batch.sequences * model.n_heads * batch.context_length**2
    return model.kv_heads == model.n_heads and entries * WIDE // 2 <= KEPT_BYTES


def _kept_entries(model: ModelSettings, batch: MicroBatch) -> int:
    """Probabilities up to the diagonal, in whole blocks of rows."""
    length, rows = batch.context_length, KEPT_BLOCK_ROWS
    kept = sum(
        (min(begin + rows, length) - begin) * min(begin + rows, length)
        for begin in range(0, length, rows)
    )
    return batch.sequences * model.n_heads * kept


def _unfused_bytes(model: ModelSettings, batch: MicroBatch) -> int:
    """Dropped probabilities on a processor: no fused kernel, all scores three times in float32."""
    alibi = isinstance(model.positions, AlibiPositions)
    chunked = alibi or batch.documents
    pairs = (
        sum(rows * stop for rows, stop in _chunks(batch.context_length))
        if chunked
        else batch.context_length**2
    )
    width = model.n_heads * (model.head_width + (ALIBI_COLUMNS if alibi else 0))
    scores = 3 * batch.sequences * model.n_heads * pairs
    output = batch.product_bytes * _query_width(model) * batch.tokens
    return WIDE * (scores + 3 * width * batch.tokens) + output


def _chunks(context_length: int) -> list[tuple[int, int]]:
    """Rows of each chunk of masked attention, and the keys that it sees."""
    return [
        (min(begin + ATTENTION_CHUNK_ROWS, context_length) - begin, end)
        for begin in range(0, context_length, ATTENTION_CHUNK_ROWS)
        for end in [min(begin + ATTENTION_CHUNK_ROWS, context_length)]
    ]
