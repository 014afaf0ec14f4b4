"""GPT-NeoX (2204.06745) and Pythia (2304.01373)."""

from typing import Any

from tests.huggingface.architectures.family import Configuration, Family


def rope(kind: str = "default", **keys: object) -> dict[str, Any]:
    """Return the keys of rotary positions."""
    rope = {"rope_type": kind, "rope_theta": 500.0, "partial_rotary_factor": 0.5} | keys
    return {"rope_parameters": rope}


def older(written: Configuration) -> Configuration:
    """Return the form before version 5 of transformers."""
    found = dict(written)
    rope = dict(found.pop("rope_parameters"))
    found["rotary_pct"] = rope.pop("partial_rotary_factor")
    found["rotary_emb_base"] = rope.pop("rope_theta")
    rope["type"] = rope.pop("rope_type")
    return found if rope["type"] == "default" else found | {"rope_scaling": rope}


FAMILY = Family(
    "gpt_neox",
    {
        "vocab_size": 48,
        "hidden_size": 32,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 16,
    },
    {
        "plain": {},
        "one branch after the other": {"use_parallel_residual": False, "hidden_act": "gelu_new"},
        "no biases in attention": {"attention_bias": False, "layer_norm_eps": 1e-3},
        "tied": {"tie_word_embeddings": True, "hidden_act": "relu"} | rope(),
        "all dimensions": rope(partial_rotary_factor=1.0),
        "rounded down": rope(partial_rotary_factor=0.3),
        "linear": rope("linear", factor=2.0),
        "yarn": rope("yarn", factor=4.0, original_max_position_embeddings=8),
    },
    {
        "activation": ({"hidden_act": "silu"}, "hidden_act"),
        "longrope": (rope("longrope"), "rope_type"),
    },
    saved_names={"lm_head.weight": "embed_out.weight"},
    older=older,
)
