"""Qwen 2 and 2.5."""

from tests.huggingface.architectures.families.llama import SHAPE, rope
from tests.huggingface.architectures.family import Family

WINDOWS = {"use_sliding_window": True, "sliding_window": 4}

FAMILY = Family(
    "qwen2",
    SHAPE | {"num_hidden_layers": 3},
    {
        "plain": {},
        "tied": {"tie_word_embeddings": True},
        "own head width": {"head_dim": 6},
        "unused window": {"sliding_window": 4},
        "windows at the end": WINDOWS | {"max_window_layers": 1},
        "named windows": WINDOWS
        | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
        "no windows": WINDOWS | {"max_window_layers": 3},
        "yarn": rope("yarn", factor=4.0, original_max_position_embeddings=8),
    },
    {"kinds": ({"layer_types": ["chunked_attention"] * 3}, "layer_types")},
)
