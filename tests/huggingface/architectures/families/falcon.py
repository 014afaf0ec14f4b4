"""Falcon (2311.16867), old and new form, with rotary positions or ALiBi."""

from typing import Any

from tests.huggingface.architectures.family import Family

GROUPED = {"new_decoder_architecture": True, "num_kv_heads": 2}
SEQUENTIAL = {"parallel_attn": False, "multi_query": False}


def rope(kind: str = "default", **keys: object) -> dict[str, Any]:
    """Return the keys of rotary positions."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 500.0} | keys}


FAMILY = Family(
    "falcon",
    {
        "vocab_size": 48,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 16,
    },
    {
        "plain": {},
        "biases": {"bias": True, "ffn_hidden_size": 24, "activation": "gelu_pytorch_tanh"},
        "many key heads": {"multi_query": False},
        "one branch after the other": SEQUENTIAL | {"bias": True},
        "one after the other, one key head": {"parallel_attn": False},
        "grouped, two norms": GROUPED,
        "grouped, one norm": GROUPED | {"num_ln_in_parallel_attn": 1, "bias": True},
        "grouped, all key heads": {"new_decoder_architecture": True},
        "ALiBi": SEQUENTIAL | {"alibi": True, "bias": True},
        "ALiBi, twelve heads": {"alibi": True, "num_attention_heads": 12, "hidden_size": 24},
        "ALiBi, parallel": {"alibi": True},
        "ALiBi, grouped": GROUPED | {"alibi": True},
        "untied": {"tie_word_embeddings": False, "activation": "relu"} | rope(),
        "yarn": rope("yarn", factor=4.0, original_max_position_embeddings=8),
    },
    {
        "activation": ({"activation": "silu"}, "activation"),
        "norms": ({"num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn"),
        "branches": (GROUPED | {"parallel_attn": False}, "parallel_attn"),
        "key heads": ({"multi_query": False, "num_kv_heads": 2}, "num_kv_heads"),
        "longrope": (rope("longrope"), "rope_type"),
    },
    attention="sdpa",  # the other one adds the biases of ALiBi twice
)
