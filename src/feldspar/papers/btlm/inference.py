"""The claims on generating text with BTLM-3B-8K, counted on its shapes and on a 7B model's."""

from collections.abc import Sequence
from typing import Any

from feldspar.model.rows import model_shapes
from feldspar.papers.kit.claims import Claim
from feldspar.papers.kit.stated import StatedClaims
from feldspar.plan.inference import Inference, plan_inference
from feldspar.recipe.load import load_recipe
from feldspar.recipe.sections.model import ModelSettings

MEMORY, COMPUTE = "three-gigabytes-at-4-bits", "less-compute-than-7b"
CONTEXTS = (2048, 8192)
"""The contexts of both training phases."""
BITS = 4
GB = 1e9
LLAMA_7B: dict[str, Any] = {
    "n_layers": 32,
    "d_model": 4096,
    "n_heads": 32,
    "d_ff": 11008,
    "vocab_size": 32000,
    "max_sequence_length": 2048,
    "positions": "rotary",
    "feed_forward": "swiglu",
    "tied_embeddings": False,
}
"""LLaMA-7B (2302.13971, table 2): 6.7e9 parameters."""


def inference_claims(claims: StatedClaims) -> list[Claim]:
    """Judge memory at 4 bits, and FLOPs of a token against those of a 7B model."""
    own = costs(load_recipe("btlm/paper").recipe.model)
    other = costs(ModelSettings(**LLAMA_7B))
    return [_memory(own, claims), _compute(own, other, claims)]


def costs(model: ModelSettings) -> list[Inference]:
    """Return the costs of a dense model at each of CONTEXTS."""
    rows = model_shapes(model).rows
    return [plan_inference(model, rows, context) for context in CONTEXTS]


def _memory(own: Sequence[Inference], claims: StatedClaims) -> Claim:
    totals = [cost.weights_bytes[BITS] + cost.cache_bytes for cost in own]
    told = ", ".join(
        f"{total / GB:.2f} GB with the cache of {cost.context_length:,} tokens"
        for total, cost in zip(totals, own, strict=True)
    )
    return claims.judged(
        MEMORY,
        f"{own[0].weights_bytes[BITS] / GB:.2f} GB of weights at {BITS} bits; {told} at 16 bits",
        held=totals[0] / GB <= claims.limit(MEMORY, "gigabytes"),
    )


def _compute(own: Sequence[Inference], other: Sequence[Inference], claims: StatedClaims) -> Claim:
    ratio = other[0].first_token_flops / own[0].first_token_flops
    scored = ", ".join(
        f"{theirs.last_token_flops / mine.last_token_flops:.2f} times after "
        f"{mine.context_length:,} tokens"
        for mine, theirs in zip(own, other, strict=True)
    )
    return claims.judged(
        COMPUTE,
        f"LLaMA-7B takes {ratio:.2f} times the FLOPs of a token without attention's scores "
        f"({own[0].first_token_flops / 1e9:.2f} against {other[0].first_token_flops / 1e9:.2f} "
        f"billion), {scored}",
        held=ratio >= claims.limit(COMPUTE, "figure") - claims.limit(COMPUTE, "near"),
        near_figure=claims.near(COMPUTE, ratio),
    )
