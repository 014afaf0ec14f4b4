"""The cost of generating text with a model: bytes of its weights and its cache, FLOPs of a token.

FLOPs are those of the forward pass by the sparse ledger (``plan.flops``). They count kept entries
of masked matrices only; dense weights are taken for the bytes, as exported files hold them.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from feldspar.core.rows import ParameterRow
from feldspar.plan.flops import forward_ledger
from feldspar.recipe.sections.model import ModelSettings

BLOCK = 32
"""Weights of a row that share one 16-bit scale, at 8 and 4 bits."""
SCALE_BITS = 16
CACHE_BYTES = 2
"""Bytes of a cached number: 16 bits."""


@dataclass(frozen=True)
class Inference:
    """Bytes and FLOPs of generating one sequence."""

    weights_bytes: dict[int, int]
    """Bytes of all weights by the bits of a matrix's entry: 32, 16, 8 or 4. Vectors are float32.
    At 8 and 4 bits each BLOCK entries of a row share a 16-bit scale (GGUF's Q8_0 and Q4_0)."""
    context_length: int
    """Tokens in the cache."""
    cache_bytes: int
    """Bytes of keys and values of the whole context, at 16 bits."""
    cache_bytes_per_token: int
    """Bytes that a token adds, while no layer's window is full."""
    first_token_flops: float
    """FLOPs of a token without scores: 2 for each kept entry of a matrix and for the head."""
    last_token_flops: float
    """FLOPs of a token that sees the whole context."""

    def record(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        bits = {str(bits): size for bits, size in self.weights_bytes.items()}
        return asdict(self) | {"weights_bytes": bits}


def plan_inference(
    model: ModelSettings,
    rows: Collection[ParameterRow],
    context_length: int,
    kept: Mapping[str, int] | None = None,
) -> Inference:
    """Return the costs at a context. ``kept`` gives the kept entries of masked matrices by name."""
    flops = forward_ledger(model, rows, context_length, kept or {})
    products = flops["matrices"] + flops["head"]
    token_bytes = 2 * CACHE_BYTES * model.kv_heads * model.head_width
    return Inference(
        weights_bytes={
            bits: sum(stored_bytes(row, bits) for row in rows) for bits in (32, 16, 8, 4)
        },
        context_length=context_length,
        cache_bytes=token_bytes * model.scored_keys(context_length),
        cache_bytes_per_token=token_bytes * model.n_layers,
        first_token_flops=products,
        last_token_flops=products + flops["attention"],
    )


def stored_bytes(row: ParameterRow, bits: int) -> int:
    """Return the bytes of a parameter whose matrix entries take ``bits``.

    A vector is float32. A matrix whose rows are no multiple of BLOCK stays at 16 bits, as in GGUF.
    """
    if len(row.shape) < 2:
        return 4 * row.count
    if bits >= 16:
        return bits * row.count // 8
    if row.shape[-1] % BLOCK:
        return 2 * row.count
    return (bits * BLOCK + SCALE_BITS) * (row.count // BLOCK) // 8
