"""SmolLM3."""

from tests.huggingface.architectures.families.llama import SHAPE, rope
from tests.huggingface.architectures.family import Family

FAMILY = Family(
    "smollm3",
    SHAPE | {"num_hidden_layers": 4},
    {
        "plain": {},
        "untied": {"tie_word_embeddings": False, "no_rope_layer_interval": 2},
        "named layers": {"no_rope_layers": [0, 1, 1, 0]},
        "all rotated": {"no_rope_layers": [1, 1, 1, 1], "attention_bias": True},
        "windows": {
            "use_sliding_window": True,
            "sliding_window": 4,
            "no_rope_layer_interval": 2,
            "mlp_bias": True,
        },
        "base": rope("default") | {"attention_bias": True, "mlp_bias": True},
        "yarn": rope("yarn", factor=4.0, original_max_position_embeddings=8),
    },
    {"short list": ({"no_rope_layers": [1, 0]}, "no_rope_layers")},
)
