"""Qwen 3."""

from tests.huggingface.architectures.families.llama import SHAPE, rope
from tests.huggingface.architectures.families.qwen2 import WINDOWS
from tests.huggingface.architectures.family import Family

FAMILY = Family(
    "qwen3",
    SHAPE | {"num_hidden_layers": 3, "head_dim": 6},
    {
        "plain": {},
        "tied": {"tie_word_embeddings": True, "head_dim": 4},
        "biases": {"attention_bias": True},
        "windows": WINDOWS | {"max_window_layers": 1},
        "yarn": rope("yarn", factor=4.0, original_max_position_embeddings=8),
    },
    {"kinds": ({"layer_types": ["sliding_attention"] * 3}, "without sliding_window")},
)
