"""Ministral 8B."""

from tests.huggingface.architectures.families.llama import SHAPE, rope
from tests.huggingface.architectures.family import Family

FAMILY = Family(
    "ministral",
    SHAPE | {"num_hidden_layers": 3, "sliding_window": 4, "head_dim": 4},
    {
        "windows": {},
        "last layer full": {
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]
        },
        "first layer full": {
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention"]
        },
        "tied": {"tie_word_embeddings": True, "head_dim": 6},
        "yarn": rope("yarn", factor=4.0, original_max_position_embeddings=8),
    },
    {"activation": ({"hidden_act": "relu"}, "hidden_act")},
)
