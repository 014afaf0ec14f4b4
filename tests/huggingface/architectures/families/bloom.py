"""BLOOM (2211.05100)."""

from tests.huggingface.architectures.family import Family

FAMILY = Family(
    "bloom",
    {"vocab_size": 48, "hidden_size": 16, "n_layer": 3, "n_head": 4},
    {
        "plain": {},
        "twelve heads": {"n_head": 12, "hidden_size": 24},
        "untied": {"tie_word_embeddings": False, "layer_norm_epsilon": 1e-3},
    },
    {
        "residual": (
            {"apply_residual_connection_post_layernorm": True},
            "apply_residual_connection_post_layernorm",
        ),
        "width": ({"n_inner": 24}, "n_inner"),
    },
    older=lambda written: {
        {"hidden_size": "n_embed", "n_head": "num_attention_heads"}.get(key, key): value
        for key, value in written.items()
    },
)
