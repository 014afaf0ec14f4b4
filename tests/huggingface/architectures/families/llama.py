"""Llama 2, 3 and 3.x (2307.09288, 2407.21783)."""

from tests.huggingface.architectures.family import Family

SHAPE = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
    "rms_norm_eps": 1e-5,
}
"""Sizes under the names that Llama and its relatives share."""


def rope(kind: str, **keys: object) -> dict[str, object]:
    """Return the keys of a scaling of rotary positions."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 500.0} | keys}


FAMILY = Family(
    "llama",
    SHAPE,
    {
        "plain": {},
        "tied, one key head": {"tie_word_embeddings": True, "num_key_value_heads": 1},
        "biases": {"attention_bias": True, "mlp_bias": True},
        "biases of attention": {"attention_bias": True},
        "biases of feed-forward": {"mlp_bias": True},
        "own head width": {"head_dim": 6},
        "gelu": {"hidden_act": "gelu"},
        "gelu, tanh form": {"hidden_act": "gelu_pytorch_tanh", "pretraining_tp": 2},
        "base": rope("default"),
        "linear": rope("linear", factor=2.0),
        "llama3": rope(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=8,
        ),
        "yarn": rope("yarn", factor=4.0, original_max_position_embeddings=8),
        "yarn, turns": rope(
            "yarn",
            factor=4.0,
            original_max_position_embeddings=64,
            beta_fast=4.0,
            beta_slow=2.0,
            attention_factor=0.75,
        ),
        "yarn, mscale": rope(
            "yarn",
            factor=4.0,
            original_max_position_embeddings=8,
            mscale=0.707,
            mscale_all_dim=1.2,
        ),
        "dynamic": rope("dynamic", factor=2.0) | {"max_position_embeddings": 8},
    },
    {
        "activation": ({"hidden_act": "relu"}, "hidden_act"),
        "longrope": (rope("longrope"), "rope_type"),
        "untruncated yarn": (rope("yarn", factor=4.0, truncate=False), "truncate"),
        "partial positions": (rope("default", partial_rotary_factor=0.5), "partial_rotary_factor"),
        "width": ({"hidden_size": 18}, "hidden_size is not a multiple"),
    },
)
