"""Gemma (2403.08295)."""

from tests.huggingface.architectures.families.llama import SHAPE, rope
from tests.huggingface.architectures.family import Family

GEMMA = SHAPE | {"head_dim": 6}

FAMILY = Family(
    "gemma",
    GEMMA,
    {
        "plain": {},
        "one key head": {"num_key_value_heads": 1, "rms_norm_eps": 1e-3},
        "biases, untied": {"attention_bias": True, "tie_word_embeddings": False},
        "exact form": {"hidden_act": "gelu"},
        "linear": rope("linear", factor=2.0),
    },
    {
        "activation": ({"hidden_act": "relu"}, "hidden_act"),
        "bidirectional": ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    },
    mean_gain=0.0,
)
