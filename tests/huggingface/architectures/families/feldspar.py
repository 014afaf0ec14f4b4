"""Our own class, for models that transformers has no class for."""

from tests.huggingface.architectures.family import Family

ROTARY = {"position_type": "rotary", "rotary_base": 500.0}

FAMILY = Family(
    "feldspar",
    {
        "vocab_size": 48,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 16,
    },
    {
        "plain": {},
        "ALiBi": {"position_type": "alibi", "feed_forward": "swiglu", "use_bias": False},
        "ALiBi, scaled": {
            "position_type": "alibi",
            "position_scaling": {"type": "linear", "factor": 2.0},
        },
        "rotary pairs": ROTARY
        | {"rotary_fraction": 0.5, "rotary_interleaved": True, "num_key_value_heads": 2},
        "rotary, scaled": ROTARY
        | {"position_scaling": {"type": "yarn", "factor": 4.0, "train_length": 8}},
        "no positions, windows": {
            "position_type": "none",
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        "Sparse Parallel": {"iso_flop": {"type": "parallel", "sparsity": 0.5}},
        "Sparse Factorized": ROTARY | {"iso_flop": {"type": "factorized", "sparsity": 0.75}},
        "Sparse Doped": {"iso_flop": {"type": "doped", "sparsity": 0.5}, "norm_type": "rms"},
        "RevNet": ROTARY
        | {
            "reversible": {"type": "revnet"},
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        "RevNet, parallel": {"reversible": {"type": "revnet"}, "branches": "parallel_one_norm"},
        "Reformer": {"reversible": {"type": "reformer"}, "position_type": "alibi"},
        "untied": {"tie_word_embeddings": False, "norm_type": "rms", "head_dim": 6},
    },
    {"positions": ({"position_type": "circular"}, "position_type")},
)
